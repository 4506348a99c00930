"""Engines of a bundle are validated and timed like its ONNX models.

On one release of TensorRT: `tests/dskd_export/engine/test_contract.py` runs the contract of engines on all.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import engine_contract
import onnx
import pytest
from engine_machines import ADA, Machine, MakeMachine, classifier, make_machine  # noqa: F401
from engine_support import make_bundle, make_classifier

from dskd_compress import console
from dskd_compress.cli import main
from dskd_export.bundle import Bundle
from dskd_export.documents.base import read_document
from dskd_export.documents.benchmark import BenchmarkDocument
from dskd_export.documents.validation import Judgement, ValidationDocument
from dskd_export.engine.builder import BuildSettings, build_engine
from dskd_export.engine.document import engines_folder
from dskd_export.runtime import tensorrt
from dskd_export.runtime.engine_proof import prove_engine

GENERATION = engine_contract.SERVES["common.py"][0]
QUICK = [
    word
    for change in ("min_seconds=0.001", "min_iterations=10", "max_warmup_seconds=0.01")
    for word in ("--set", f"benchmark.{change}")
]


@pytest.fixture
def bundle(tmp_path: Path, classifier: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> Bundle:  # noqa: F811
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "_document_written", False)
    return make_bundle(tmp_path / "bundle", classifier, fp16=classifier)


@pytest.fixture
def machine_of(make_machine: MakeMachine, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Machine]:  # noqa: F811
    """A machine whose runners use its own TensorRT and CUDA."""

    def make(**world: object) -> Machine:
        machine = make_machine(GENERATION, **world)
        monkeypatch.setattr(tensorrt, "open_backend", lambda _: machine.backend)
        monkeypatch.setattr(tensorrt, "Cuda", lambda _: machine.cuda)
        return machine

    return make


def build(machine: Machine, bundle: Bundle, precision: str = "fp16", batches: tuple[int, ...] = (1, 8)) -> Path:
    settings = BuildSettings(batches=batches)
    path, _ = build_engine(bundle, precision, engines_folder(bundle.folder), settings, run=machine.run)
    return path


def validate(*flags: str, code: int = 0) -> ValidationDocument:
    assert main(["validate", "bundle", "--out", "out", *flags]) == code
    return read_document(Path("out/validation.json"), ValidationDocument)


def benchmark(*flags: str, code: int = 0) -> BenchmarkDocument:
    assert main(["benchmark", "bundle", "--out", "out", "--provider", "cpu", *QUICK, *flags]) == code
    return read_document(Path("out/benchmark.json"), BenchmarkDocument)


def engine_of(document: ValidationDocument) -> Judgement:
    (judgement,) = [one for one in document.judgements if one.runner.startswith("tensorrt:")]
    return judgement


def test_validated_and_timed(machine_of: Callable[..., Machine], bundle: Bundle) -> None:
    machine = machine_of()
    path = build(machine, bundle)
    proven = prove_engine(path)
    judgement = engine_of(validate("--provider", "cpu"))
    assert (judgement.runner, judgement.verdict) == ("tensorrt:cuda:fp16", "PASS")
    assert judgement.native is True
    assert judgement.native_reason == "fp16 100% of layers and 100% of time (inspector)"
    assert judgement.engine_sha256 == proven.engine_sha256
    assert judgement.size_mb == pytest.approx(path.stat().st_size / 1e6)
    assert {parity.batch for parity in judgement.parity} == {8, 1, 3}
    assert max(parity.max_abs_relative for parity in judgement.parity) < 1e-5
    rows = benchmark("--runner", "tensorrt").rows
    assert [(row.precision, row.batch, row.part) for row in rows] == [
        ("fp16", batch, part) for batch in (1, 8) for part in ("engine", "with_preprocessing")
    ]
    for row in rows:
        assert row.latency is not None
        assert (row.provider, row.streams, row.cuda_graph, row.threads) == ("cuda", 1, True, None)
        assert row.size_mb == pytest.approx(path.stat().st_size / 1e6)
    assert machine.world.cuda.is_clean, "everything is released"


def test_of_another_precision_than_it_says(machine_of: Callable[..., Machine], bundle: Bundle) -> None:
    machine = machine_of()
    path = build(machine, bundle)
    machine.world.layer_type = "Float"
    prove_engine(path)
    judgement = engine_of(validate("--runner", "tensorrt"))
    assert judgement.native is False
    assert "fp32 100% of layers" in judgement.native_reason


def test_a_batch_without_a_profile(machine_of: Callable[..., Machine], bundle: Bundle) -> None:
    build(machine_of(), bundle, batches=(4,))
    judgement = engine_of(validate("--runner", "tensorrt"))
    assert judgement.verdict == "PASS"
    assert {parity.batch for parity in judgement.parity} == {4, 1, 3}
    rows = benchmark("--runner", "tensorrt", "--batch", "8", "--batch", "4").rows
    assert [row.unavailable for row in rows[:2]] == [
        "the engine takes batches of 1 to 4; build it with --batch 8"
    ] * 2
    assert rows[2].latency is not None


def test_an_engine_of_another_gpu_is_not_run_and_said(
    machine_of: Callable[..., Machine], bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    build(machine_of(), bundle)
    machine_of(gpu=ADA)
    judgement = engine_of(validate("--provider", "cpu"))
    assert judgement.verdict == "NOT RUN"
    assert "Orin (nvgpu) (compute capability 8.7)" in judgement.reason
    document = benchmark("--batch", "1")
    assert {row.unavailable != "" for row in document.rows if row.runner == "tensorrt"} == {True}
    assert document.provenance.device.device == "cpu"
    capsys.readouterr()
    assert main(["validate", "bundle", "--out", "out2", "--runner", "tensorrt"]) == 4
    said = capsys.readouterr().err
    assert "model.fp16.engine: " in said
    assert "dskd-compress build bundle" in said
    assert not Path("out2").exists()


def test_none_was_built(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["validate", "bundle"], ["benchmark", "bundle"]):
        assert main([*command, "--out", "out", "--runner", "tensorrt"]) == 4
        assert "none was built" in capsys.readouterr().err
    assert not Path("out").exists()
    assert "tensorrt:cuda:fp16" not in {one.runner for one in validate("--provider", "cpu").judgements}


def test_an_engine_of_another_bundle_is_not_run(machine_of: Callable[..., Machine], bundle: Bundle) -> None:
    machine = machine_of()
    other = make_bundle(bundle.folder.with_name("other"), make_classifier(seed=9))
    settings = BuildSettings(batches=(1, 8))
    build_engine(other, "fp32", engines_folder(bundle.folder), settings, run=machine.run)
    judgement = engine_of(validate("--provider", "cpu"))
    assert (judgement.verdict, judgement.reason) == ("NOT RUN", "it was built from another bundle")


def test_the_one_that_can_be_run_is_taken(machine_of: Callable[..., Machine], bundle: Bundle) -> None:
    build(machine_of(gpu=ADA), bundle)
    here = build(machine_of(), bundle)
    judgement = engine_of(validate("--provider", "cpu"))
    assert judgement.verdict == "PASS"
    document = json.loads(here.with_name("model.fp16.build.json").read_text())
    assert judgement.engine_sha256 == document["engine_sha256"]


def test_a_pair(machine_of: Callable[..., Machine], bundle: Bundle) -> None:
    build(machine_of(), bundle)
    document = validate("--pair", "onnxruntime:cpu:fp32", "tensorrt:cuda:fp16")
    assert document.reference == "onnxruntime:cpu:fp32"
    assert [one.runner for one in document.judgements] == ["tensorrt:cuda:fp16"]


def test_a_damaged_engine_is_refused(
    machine_of: Callable[..., Machine], bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    path = build(machine_of(), bundle)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert main(["validate", "bundle", "--out", "out", "--provider", "cpu"]) == 3
    assert "its sha256 differs" in capsys.readouterr().err
