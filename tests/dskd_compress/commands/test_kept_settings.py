"""What the flags of a command say is kept in the run: `run` afterwards repeats nothing and makes nothing less."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_support import Finished

from dskd_compress.cli import main
from dskd_compress.run_folder import STAGE_NAMES, RunFolder

pytestmark = pytest.mark.usefixtures("no_document_yet")

FEW = ["--set", "export.calibration.images=8", "--set", "export.quantize.search=false"]

# Each stage with flags; all of them differ from what the run was made with.
FLAGS = {
    "train": ["--epochs", "1", "--batch-size", "64"],
    "distill": ["--epochs", "1", "--method", "kd", "--lr", "0.001"],
    "tune": ["--amp", "bf16", "--set", "tune.epochs=1", "--set", "tune.calibration_batches=1"],
    "export": ["--precision", "fp16,int8", "--target", "ada", *FEW],
    "validate": ["--precision", "fp32", "--precision", "fp16", "--images", "40", "--set", "budget.top1_drop=0.5"],
    "benchmark": ["--batch", "1", "--runner", "onnxruntime", "--set", "budget.latency_p99_ms=100000"],
    "report": ["--set", "report.title=Bolts"],
}


def stale(folder: RunFolder, stages: tuple[str, ...] = STAGE_NAMES) -> dict[str, str]:
    """Stage -> why `run` would repeat it."""
    recipe = folder.read_recipe()
    found = {name: folder.why_rerun(name, recipe) for name in stages}
    return {name: why for name, why in found.items() if why is not None}


def models(folder: RunFolder) -> set[str]:
    return {path.name.split(".")[1] for path in folder.bundle.glob("model.*.onnx")}


def test_run_repeats_nothing_of_what_the_commands_made(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished.copy(tmp_path / "run")
    assert set(FLAGS) == set(STAGE_NAMES)
    for done, stage in enumerate(STAGE_NAMES, start=1):
        import time; t=time.time()
        assert main([stage, str(folder.path), *FLAGS[stage]]) in (0, 5, 6), capsys.readouterr().err
        print(stage, time.time()-t)
        assert stale(folder, STAGE_NAMES[:done]) == {}, f"after {stage}"
    written = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    capsys.readouterr()
    main(["run", str(folder.path), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert [(one["stage"], one["why"]) for one in document["stages"]] == [
        (name, "unchanged") for name in STAGE_NAMES
    ]
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == written
    assert models(folder) == {"fp32", "fp16", "int8"}
