"""A tiny finished run on digits, made by the command line, that the kills and pairs of writers start from."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "helpers"), str(ROOT / "export"), str(ROOT)]

import process_support  # noqa: E402
from process_support import exit_codes, start  # noqa: E402
from run_support import small_recipe  # noqa: E402
from writers_support import output_of  # noqa: E402

from dskd_compress.recipe import dump_recipe  # noqa: E402
from dskd_compress.run_folder import RunFolder  # noqa: E402
from dskd_export.documents.base import StageRecord  # noqa: E402

PRELOADED = ["process_support", "dskd_compress.stages.pipeline", "onnxscript", "onnxruntime", "sklearn.datasets"]
PATIENCE_S = 3600


def make_finished_run(place: Path, *settings: str) -> RunFolder:
    """Run all stages in a new folder."""
    process_support._CONTEXT.set_forkserver_preload(PRELOADED)
    recipe, folder, output = place / "recipe.yaml", RunFolder(place / "base"), place / "output"
    recipe.write_text(dump_recipe(small_recipe(*settings)), encoding="utf-8")
    process = start(["run", str(recipe), "--out", str(folder.path)], output)
    if exit_codes(process, timeout_s=PATIENCE_S)[0] not in (0, 5):
        raise SystemExit(output_of(output))
    return folder


def read_seconds(folder: RunFolder) -> dict[str, float]:
    """Read the seconds of each stage."""
    records = {path.stem: path.read_bytes() for path in (folder / "stages").iterdir()}
    return {name: StageRecord.model_validate_json(text).provenance.seconds for name, text in records.items()}
