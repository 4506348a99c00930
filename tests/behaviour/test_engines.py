"""Engines of a run are validated against torch and timed beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import engine_contract
import pytest
from engine_machines import make_machine as make_machine  # a fixture
from run_support import QUIET, Finished

from dskd_compress.run_folder import RunFolder
from dskd_compress.stages.benchmark import run_benchmark
from dskd_compress.stages.validate import run_validate
from dskd_export.bundle import open_bundle
from dskd_export.engine.builder import BuildSettings, build_engine
from dskd_export.errors import EnvironmentProblem
from dskd_export.runtime import tensorrt

GENERATION = engine_contract.SERVES["common.py"][0]


@pytest.fixture
def run(finished: Finished, tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(finished.folder.path, folder.path)
    return folder


def test_an_engine_beside_torch(run, finished, make_machine, monkeypatch):
    machine = make_machine(GENERATION)
    monkeypatch.setattr(tensorrt, "open_backend", lambda _: machine.backend)
    monkeypatch.setattr(tensorrt, "Cuda", lambda _: machine.cuda)
    build_engine(open_bundle(run.bundle), "fp32", run.engines, BuildSettings(batches=(1, 8)), run=machine.run)

    document = run_validate(run.read_recipe(["validate.providers=[cpu]"]), run, QUIET)
    (judgement,) = [one for one in document.judgements if one.runner == "tensorrt:cuda:fp32"]
    assert document.reference == "torch:cpu:fp32"
    assert judgement.verdict == "PASS"
    assert judgement.accuracy is not None
    assert judgement.accuracy.agreement.value == 1

    timed = run_benchmark(run.read_recipe(["benchmark.batches=[1]", "benchmark.teacher=false"]), run, QUIET)
    rows = {row.runner for row in timed.rows if row.latency is not None}
    assert rows == {"torch", "onnxruntime", "tensorrt"}
    assert {row.size_mb is None for row in timed.rows if row.runner == "torch"} == {True}


def test_nothing_but_engines_and_none_is_there(run):
    for stage, key in ((run_validate, "validate"), (run_benchmark, "benchmark")):
        recipe = run.read_recipe([f"{key}.runners=[tensorrt]", "benchmark.teacher=false"])
        with pytest.raises(EnvironmentProblem, match=r"none was built"):
            stage(recipe, run, QUIET)
