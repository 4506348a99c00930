"""Kill `run` at random moments in each of its stages, start it again, and compare it with a run never killed.

    python benchmarks/kill_run.py [--kills 20] [--seed 0] [--write]

The stages take turns. For each kill a copy of the finished run goes back to where that stage has not begun; `run`
starts, and gets SIGKILL at a random moment of the stage. The same command then goes to the end. Student and bundle
must have the same sha256, all records must be true, and the folder must hold the same files, no more. With --write
the figures go to results/kill_run.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT / "tests" / "helpers"), str(ROOT / "export"), str(ROOT)]

import process_support  # noqa: E402
import torch  # noqa: E402
from process_support import exit_codes, start  # noqa: E402
from run_support import SMALL_STAGES, small_recipe  # noqa: E402
from writers_support import false_statements, files_of, leftovers, output_of, without_stages  # noqa: E402

from dskd_compress.recipe import dump_recipe  # noqa: E402
from dskd_compress.run_folder import RunFolder  # noqa: E402
from dskd_export.documents.base import StageRecord  # noqa: E402
from dskd_export.files.atomic import sha256_file, write_atomic  # noqa: E402

PRELOADED = ["process_support", "dskd_compress.stages.pipeline", "onnxscript", "onnxruntime", "sklearn.datasets"]


PATIENCE_S = 3600


def kill_once(base: RunFolder, stage: str, delay_s: float, place: Path) -> dict[str, Any]:
    """Kill one run in a stage, start it again, and say what is different."""
    folder, said = RunFolder(place / "run"), place / "said"
    shutil.copytree(base.path, folder.path)
    without_stages(folder, SMALL_STAGES[SMALL_STAGES.index(stage) :])
    command = ["run", str(folder.path)]
    process = start(command, said)
    while process.exitcode is None and not (said.exists() and f"{stage}: " in output_of(said)):
        time.sleep(0.01)
    process.join(delay_s)
    killed = process.exitcode is None
    if killed:
        os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    half = leftovers(folder)
    (code,) = exit_codes(start(command, said), timeout_s=PATIENCE_S)
    wrong = false_statements(folder) + leftovers(folder)
    wrong += [
        f"{name} is another"
        for name in ("student.safetensors", "bundle/manifest.json")
        if sha256_file(folder / name) != sha256_file(base / name)
    ]
    wrong += sorted(files_of(folder) ^ files_of(base))
    if code not in (0, 5):
        wrong.append(f"it ended with {code}: {output_of(said)[-300:]}")
    shutil.rmtree(place)
    return {
        "stage": stage,
        "delay_s": round(delay_s, 3),
        "killed": killed,
        "left_by_the_kill": half,
        "wrong": wrong,
    }


def main() -> None:
    """Run, compare, print a table, and with --write keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    process_support._CONTEXT.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        recipe = place / "recipe.yaml"
        recipe.write_text(dump_recipe(small_recipe("train.checkpoint_steps=3")), encoding="utf-8")
        base = RunFolder(place / "base")
        process = start(["run", str(recipe), "--out", str(base.path)], place / "said")
        if exit_codes(process, timeout_s=PATIENCE_S)[0] not in (0, 5):
            raise SystemExit(output_of(place / "said"))
        kills = []
        while sum(kill["killed"] for kill in kills) < arguments.kills:
            stage = SMALL_STAGES[len(kills) % len(SMALL_STAGES)]
            record = StageRecord.model_validate_json((base / f"stages/{stage}.json").read_bytes())
            (inner := place / f"kill-{len(kills)}").mkdir()
            kill = kill_once(base, stage, draw.uniform(0, record.provenance.seconds), inner)
            kills.append(kill)
            print(json.dumps(kill), flush=True)
        digests = {name: sha256_file(base / name) for name in ("student.safetensors", "bundle/manifest.json")}
    document = {
        "kills": kills,
        "killed": sum(kill["killed"] for kill in kills),
        "wrong": sum(len(kill["wrong"]) for kill in kills),
        "sha256": digests,
        "seed": arguments.seed,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    print(json.dumps({name: value for name, value in document.items() if name != "kills"}))
    if arguments.write:
        write_atomic(HERE / "results" / "kill_run.json", json.dumps(document, indent=1) + "\n")
    if document["wrong"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
