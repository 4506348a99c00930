"""A bundle is validated, timed and reported by the command line, in an environment that has no torch."""

from __future__ import annotations

import fcntl
import json
import platform
import shutil
from pathlib import Path
from typing import Any

import bundle_support
import numpy as np
import pytest
from device_support import expected_logits, make_device_bundle
from PIL import Image

from dskd_compress import console
from dskd_compress.cli import main
from dskd_export.bundle import open_bundle, pack_bundle
from dskd_export.bundle.results import results_folder
from dskd_export.bundle.source import source_name
from dskd_export.documents.base import StageRecord, read_document
from dskd_export.documents.benchmark import BenchmarkDocument
from dskd_export.documents.validation import Judgement, ValidationDocument
from dskd_export.files.folder_lock import LOCK
from dskd_export.runtime.preprocess import preprocess_batch
from dskd_export.telemetry.host import device_name
from dskd_export.validation import run as flow
from dskd_export.validation.checks import IS_REFERENCE

QUICK = [
    word
    for change in ("min_seconds=0.001", "min_iterations=10", "max_warmup_seconds=0.01")
    for word in ("--set", f"benchmark.{change}")
]
FP32, INT8 = "onnxruntime:cpu:fp32", "onnxruntime:cpu:int8"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_device_bundle(tmp_path_factory.mktemp("device"))


@pytest.fixture
def bundle(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "_document_written", False)
    shutil.copytree(made.parent, tmp_path / "device")
    return tmp_path / "device/bundle"


def validation(*arguments: object, code: int = 0) -> ValidationDocument:
    assert main(["validate", *map(str, arguments), "--out", "out"]) == code
    return read_document(Path("out/validation.json"), ValidationDocument)


def unjudged_because(judgement: Judgement) -> set[str]:
    return {check.detail for check in judgement.checks if check.verdict == "NOT JUDGED"}


def test_with_images_accuracy_is_what_an_independent_calculation_gives(bundle: Path) -> None:
    document = validation(bundle, "--images", bundle.parent / "photos", "--set", "budget.int8.top1_drop=0.2")
    spec, (weight, bias) = bundle_support.make_spec(), bundle_support.make_head()
    right = []
    for label, name in enumerate(spec.classes):
        for path in sorted((bundle.parent / "photos" / name).glob("*.png")):
            logits = expected_logits(preprocess_batch([Image.open(path)], spec), weight, bias)
            right.append(int(logits.argmax()) == label)
    assert document.reference == FP32
    assert document.accuracy[FP32].images == len(right)
    assert document.accuracy[FP32].top1.value == pytest.approx(np.mean(right))
    fp32, int8 = document.judgements
    assert fp32.accuracy is None  # it is the reference, checked against torch's golden logits
    assert (unjudged_because(fp32), unjudged_because(int8)) == ({IS_REFERENCE}, set())
    assert int8.accuracy is not None
    assert (int8.accuracy.lost, int8.accuracy.agreement.value, int8.accuracy.mcnemar_p) == (0, 1.0, 1.0)
    golden = next(check for check in document.checks if check.name == "golden images")
    assert (golden.verdict, golden.detail) == ("PASS", "9 of 9 were among the images")


def test_too_few_images_for_the_budget_end_with_6(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = (bundle, "--images", bundle.parent / "photos", "--set", "budget.int8.top1_drop=0.001")
    document = validation(*few, code=6)
    assert (document.verdict, document.passed) == ("NOT SHOWN", False)
    assert "0 of 48 images lost; 3,900 images would show it" in capsys.readouterr().err
    assert validation(*few, "--accept-unproven").verdict == "NOT SHOWN"


def test_a_bundle_has_no_teacher_and_its_student_is_judged_by_the_commonest_class(bundle: Path) -> None:
    without = validation(bundle).student
    assert without is not None
    assert {check.verdict for check in without.checks} == {"NOT JUDGED"}
    loose = ("--set", "budget.int8.top1_drop=0.2", "--set", "budget.int8.agreement=0.5")
    student = validation(bundle, "--images", bundle.parent / "photos", *loose).student
    assert student is not None
    found = {check.name: check for check in student.checks}
    assert found["drop vs teacher"].verdict == "NOT JUDGED"
    assert "a bundle holds no teacher" in found["drop vs teacher"].detail
    assert found["vs commonest class"].verdict == "PASS"
    assert (found["vs commonest class"].limit, student.commonest_class) == (0.25, "class 0")


def test_a_packed_bundle_gives_the_same(bundle: Path) -> None:
    packed = pack_bundle(bundle, bundle.parent / "r18.tar.gz")
    assert main(["validate", str(packed)]) == 0
    (written,) = Path("results/r18").iterdir()
    document = read_document(written / "validation.json", ValidationDocument)
    assert document.judgements == validation(bundle).judgements
    assert results_folder(packed, device_name()) == written


def test_a_verdict_on_labelled_images_is_not_replaced_by_less(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = ("--images", bundle.parent / "photos", "--set", "budget.int8.top1_drop=0.2")
    validation(bundle)
    labelled = validation(bundle, *photos)
    assert validation(bundle, code=2) == labelled
    message = capsys.readouterr().err
    assert "--images FOLDER" in message
    assert "--out FOLDER" in message
    for more in ((), photos):
        loose = ("--set", "budget.int8.mean_abs_relative=0.5")
        assert validation(bundle, "--pair", FP32, INT8, *loose, *more) == labelled
        assert f"Not checked: {INT8} was compared with {FP32} alone" in capsys.readouterr().out
    assert validation(bundle, *photos).judgements == labelled.judgements


def test_a_pair(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = validation(bundle, "--pair", FP32, INT8, "--set", "budget.int8.mean_abs_relative=0.5")
    assert (document.reference, [one.runner for one in document.judgements]) == (FP32, [INT8])
    assert document.judgements[0].parity[0].max_abs == 0
    assert main(["validate", str(bundle), "--pair", "torch:cpu:fp32", INT8]) == 2
    assert "validated without torch" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["validate", "benchmark", "report"])
def test_results_that_another_process_writes_are_left_alone(
    command: str, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    holder = {
        "pid": 4711,
        "host": platform.node(),
        "command": "dskd-compress benchmark b",
        "started": "2026-01-01",
    }
    Path("out/stages").mkdir(parents=True)
    (Path("out") / LOCK).write_text(json.dumps(holder))
    shutil.copytree(bundle, "out/bundle")
    with (Path("out") / LOCK).open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        line = [command, "out"] if command == "report" else [command, str(bundle), "--out", "out"]
        assert main(line) == 4
    error = capsys.readouterr().err
    assert "out is in use: process 4711 (dskd-compress benchmark b) has been writing to it since 2026" in error
    assert {path.name for path in Path("out").iterdir()} == {LOCK, "bundle", "stages"}


@pytest.mark.parametrize("name", ["benchmark.partial", "bundle", "stages"])
def test_results_are_not_written_through_links(name: str, bundle: Path) -> None:
    Path("out").mkdir()
    Path("victim").mkdir()
    (Path("out") / name).symlink_to(Path("victim").resolve())
    assert main(["benchmark", str(bundle), "--out", "out", "--batch", "1", *QUICK]) == 4
    assert list(Path("victim").iterdir()) == []


def test_results_of_a_bundle_that_was_replaced_meanwhile_are_not_written(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validate = flow.validate_bundle

    def validate_and_replace(*arguments: Any, **more: Any) -> ValidationDocument:
        document = validate(*arguments, **more)
        (bundle / "manifest.json").write_text((bundle / "manifest.json").read_text() + "\n")
        return document

    monkeypatch.setattr(flow, "validate_bundle", validate_and_replace)
    assert main(["validate", str(bundle), "--out", "out"]) == 3
    assert not Path("out").exists()


def test_benchmark_report_and_what_lies_in_the_results(bundle: Path) -> None:
    assert main(["validate", str(bundle), "--out", "out"]) == 0
    assert main(["benchmark", str(bundle), "--out", "out", "--batch", "1", "--batch", "3", *QUICK]) == 0
    document = read_document(Path("out/benchmark.json"), BenchmarkDocument)
    cells = {(row.precision, row.provider, row.batch, row.part) for row in document.rows}
    assert cells == {
        (precision, "cpu", batch, part)
        for precision in ("fp32", "int8")
        for batch in (1, 3)
        for part in ("engine", "with_preprocessing")
    }
    assert "noise of 500x375 pixels" in document.images
    with np.load("out/benchmark.samples.npz") as samples:
        assert {row.samples_key for row in document.rows} == set(samples)
    assert main(["report", "out", "--set", "report.title=Orin"]) == 0
    page = Path("out/report.md").read_text(encoding="utf-8")
    assert page.startswith("# Orin")
    assert "STALE" not in page
    assert "golden.npz" in page
    left = {path.relative_to("out").as_posix() for path in Path("out").rglob("*") if path.is_file()}
    assert left == {
        "validation.json",
        "benchmark.json",
        "benchmark.samples.npz",
        "report.csv",
        "report.html",
        "report.md",
        "bundle/manifest.json",
        "bundle/spec.json",
        "stages/validate.json",
        "stages/benchmark.json",
    }
    record = read_document(Path("out/stages/benchmark.json"), StageRecord)
    assert record.inputs["bundle/manifest.json"] == document.bundle_sha256
    open_bundle(bundle)  # it is as it was


def test_only_what_is_asked_for_is_timed(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "--precision",
        "int8",
        "--batch",
        "2",
        "--threads",
        "1",
        "--images",
        str(bundle.parent / "photos"),
    ]
    assert main(["benchmark", str(bundle), "--out", "out", *arguments, *QUICK, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {(row["precision"], row["batch"], row["threads"]) for row in document["rows"]} == {("int8", 2, 1)}
    assert document["images"].startswith("of ")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["validate", "BUNDLE", "--set", "train.lr=1"], 2, "a bundle has no recipe to change"),
        (["validate", "BUNDLE", "--set", "budget.int8.top1_drop=2"], 2, "budget.int8.top1_drop"),
        (["validate", "BUNDLE", "--out", "BUNDLE/out"], 2, "lies in the bundle"),
        (["validate", "BUNDLE", "--precision", "fp16"], 2, "no model of precision fp16; it holds fp32, int8"),
        (["validate", "BUNDLE", "--images", "512"], 3, "512: no such folder"),
        (["benchmark", "BUNDLE", "--set", "benchmark.runners=[torch]"], 2, "runners names torch"),
        (["benchmark", "nothing"], 3, "nothing"),
        (["report", "nothing"], 3, "nothing: no such folder"),
    ],
)
def test_what_cannot_be_asked_for(
    arguments: list[str], code: int, said: str, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.replace("BUNDLE", str(bundle)) for word in arguments]) == code
    assert said in " ".join(capsys.readouterr().err.split())
    assert not Path("results").exists()
    assert not Path("out").exists()
    open_bundle(bundle)


def test_what_a_bundle_is_called(tmp_path: Path) -> None:
    run = tmp_path / "runs/r18"
    (run / "bundle").mkdir(parents=True)
    assert source_name(run / "bundle") == "bundle"
    (run / "recipe.yaml").touch()
    assert source_name(run / "bundle") == "r18"
    assert source_name(tmp_path / "r18.tar.zst") == "r18"
