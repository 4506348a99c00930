from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from dskd_export import codes
from dskd_export.bundle import bundle_of
from dskd_export.engine import identity
from dskd_export.engine.builder import build_engine
from dskd_export.engine.document import GpuFacts, document_path, engines_folder, source_of
from dskd_export.engine.generations import Installed
from dskd_export.engine.identity import check_identity, read_engine
from dskd_export.errors import DataError, EnvironmentProblem, UsageError
from dskd_export.runtime.tensorrt import TensorRtRunner
from dskd_export.settings import BuildSettings

ORIN = GpuFacts(name="Orin (nvgpu)", compute_capability="8.7", memory_mb=8_000, driver="540.4.0", cuda="12.6")
TEN = Installed("tensorrt", "tensorrt", Path("/x"), "10.16.1.11", True)


def rename_gpu(name: str, compute_capability: str = ORIN.compute_capability) -> GpuFacts:
    return ORIN.model_copy(update={"name": name, "compute_capability": compute_capability})


@pytest.fixture
def engine(make_machine, bundle):
    machine = make_machine("tensorrt_bindings 10.16.1.11")
    path, _ = build_engine(bundle, "fp32", engines_folder(bundle.folder), BuildSettings(), run=machine.run)
    return machine, path


def refusal(document, path, **here) -> EnvironmentProblem:
    with pytest.raises(EnvironmentProblem) as caught:
        check_identity(document, path, **here)
    return caught.value


def test_the_same_machine_may_load_it(engine):
    _, path = engine
    document, data = read_engine(path)
    check_identity(document, path)
    assert len(data) == document.engine_bytes


def test_both_sides_and_the_command_are_told(engine):
    _, path = engine
    document, _ = read_engine(path)
    other = GpuFacts(name="NVIDIA H200", compute_capability="9.0", memory_mb=150_000, driver="580.1", cuda="13.0")
    newer = replace(TEN, version="11.4.0.106")
    error = refusal(document, path, gpu=other, there=newer)
    assert "it needs tensorrt 10.16.1.11, 11.4.0.106 is installed" in error.message
    assert "it needs Orin (nvgpu) (compute capability 8.7), the GPU is NVIDIA H200 (9.0)" in error.message
    assert "built with tensorrt 10.16.1.11 on Orin (nvgpu), driver 540.4.0" in error.message
    assert "here: tensorrt 11.4.0.106, NVIDIA H200, driver 580.1" in error.message
    source = source_of(path)
    assert error.hint == f"Build it here: dskd-compress build {source} --precision fp32 --batch 1,8"
    assert source.name == "bundle"


@pytest.mark.parametrize(
    ("change", "here", "words"),
    [
        ({}, {"there": None}, None),
        ({"version_compatible": True}, {"there": replace(TEN, version="11.0.0")}, None),
        ({"version_compatible": True}, {"there": replace(TEN, version="10.3.0")}, "10.3.0 is installed"),
        ({}, {"there": replace(TEN, version=None)}, None),
        (
            {"hardware": "ampere-plus"},
            {"gpu": rename_gpu("A100", "8.0")},
            None,
        ),
        ({"hardware": "ampere-plus"}, {"gpu": rename_gpu("T4", "7.5")}, "T4 (7.5)"),
        ({"hardware": "same-compute-capability"}, {"gpu": rename_gpu("Orin Nano")}, None),
        ({}, {"gpu": rename_gpu("Orin Nano")}, "Orin Nano (8.7)"),
        ({"targets": ["sm86", "sm87"]}, {}, None),
        ({"targets": ["sm86"]}, {}, "sm86, the GPU is sm87"),
        ({"system": "Windows AMD64"}, {}, "Windows AMD64"),
        ({"stripped": True}, {}, "stripped"),
        ({"backend": "tensorrt-rtx"}, {}, "tensorrt-rtx is not installed"),
    ],
)
def test_what_fits(engine, change, here, words):
    _, path = engine
    document = read_engine(path)[0].model_copy(update=change)
    if words is None:
        check_identity(document, path, **here)
    else:
        assert words in refusal(document, path, **here).message


def test_no_gpu(engine, monkeypatch):
    _, path = engine
    monkeypatch.setattr(identity, "find_gpu", lambda index=0: None)
    assert refusal(read_engine(path)[0], path).code is codes.ENGINE_GPU


def test_it_is_refused_within_a_second_and_before_tensorrt_sees_it(engine, monkeypatch):
    machine, path = engine
    monkeypatch.setattr(identity, "find_gpu", lambda index=0: rename_gpu("NVIDIA L4"))
    monkeypatch.setattr(type(machine.backend), "open", lambda self, plan: pytest.fail("it was opened"))
    began = time.perf_counter()
    with pytest.raises(EnvironmentProblem, match="NVIDIA L4"):
        TensorRtRunner(path, backend=machine.backend, cuda=machine.cuda)
    assert time.perf_counter() - began < 1


def test_an_altered_engine(engine):
    _, path = engine
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DataError, match="sha256"):
        read_engine(path)
    path.unlink()
    with pytest.raises(DataError) as caught:
        read_engine(path)
    assert str(path) in caught.value.message
    document_path(path).unlink()
    with pytest.raises(DataError) as caught:
        read_engine(path)
    assert str(document_path(path)) in caught.value.message


def test_a_version_that_no_metadata_told_is_checked_when_it_is_loaded(engine, monkeypatch):
    machine, path = engine
    monkeypatch.setattr(identity, "find_installed", lambda: (replace(TEN, version=None),))
    machine.trt.__version__ = "10.3.0"
    with pytest.raises(EnvironmentProblem, match=r"10\.16\.1\.11.*10\.3\.0"):
        TensorRtRunner(path, backend=machine.backend, cuda=machine.cuda)


def test_where_engines_lie(tmp_path):
    run, alone = tmp_path / "run", tmp_path / "mine"
    (run / "bundle").mkdir(parents=True)
    alone.mkdir()
    assert engines_folder(run) == run / "engines"
    assert bundle_of(run) == run / "bundle"
    assert engines_folder(alone) == tmp_path / "mine.engines"
    assert bundle_of(alone) == alone
    (run / "recipe.yaml").write_text("")
    assert engines_folder(run / "bundle") == run / "engines"
    for source in (run, alone):
        assert source_of(engines_folder(source) / "orin/model.fp16.engine") == source
    with pytest.raises(UsageError, match=r"model\.<precision>\.engine"):
        document_path(Path("a.plan"))
    assert document_path(Path("d/model.int8.stripped.engine")) == Path("d/model.int8.stripped.build.json")
