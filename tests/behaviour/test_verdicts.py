"""The verdicts through the commands: what is shipped, what is not, and with which exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_support import Finished

from dskd_compress import console
from dskd_compress.cli import main
from dskd_compress.weights import load_trained, save_weights
from dskd_export.documents.base import read_document
from dskd_export.documents.benchmark import BenchmarkDocument
from dskd_export.documents.validation import ValidationDocument

QUICK = ("teacher=false", "exporter=legacy", "calibration.images=8", "quantize.search=false")
EXPORT = [word for key in QUICK for word in ("--set", f"export.{key}")]


DECISIONS = ("Ship ", "Do not ship", "Not ", "Nothing ", "The student itself ")


def decision_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The decision that a command prints, below all tables."""
    lines = capsys.readouterr().out.splitlines()
    found = [index for index, line in enumerate(lines) if line.startswith(DECISIONS)]
    tables = [index for index, line in enumerate(lines) if "━" in line]
    assert found
    assert not tables or found[0] > tables[-1]
    return lines[found[0]]


def test_a_student_far_below_its_teacher_is_not_shipped_and_the_report_is_written(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_document_written", False)
    folder = finished.copy(tmp_path / "run")
    strict = ["--set", "budget.student_drop=0.02"]
    assert main(["run", str(folder.path), *strict, "--accept-unproven"]) == 5
    printed = capsys.readouterr()
    document = read_document(folder / "validation.json", ValidationDocument)
    assert document.student is not None
    assert (document.verdict, document.student.verdict) == ("FAIL", "FAIL")
    assert {one.verdict for one in document.judgements} == {"PASS"}  # the export itself is right
    assert document.student.teacher is not None
    points = round(100 * document.student.teacher.top1_drop.value, 1)
    sentence = f"Do not ship: the student is {points:g} points below its teacher."
    assert sentence in printed.out.splitlines()
    assert printed.out.count(document.student.reason) == 1, "in the detail of the decision"
    assert printed.out.splitlines()[-1] == f"Report: {folder / 'report.html'}"
    assert "error: Not good enough to ship (exit code 5)." in printed.err
    assert document.student.reason not in printed.err
    report = (folder / "report.md").read_text(encoding="utf-8").replace("\u00a0", " ")
    assert f"**FAIL**: {sentence}" in report
    assert document.student.reason in report


PAIR = ("torch:cpu:fp32", "onnxruntime:cpu:fp32")


def test_a_pair_is_a_question_of_one_call(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished.copy(tmp_path / "run")
    path, report = str(folder.path), folder / "report.md"
    before = {one: one.read_bytes() for one in folder.path.rglob("*") if one.is_file()}
    assert main(["validate", path, "--pair", *PAIR, "--set", "budget.student_drop=0.02"]) == 0
    assert decision_of(capsys).startswith(
        "Not checked: onnxruntime:cpu:fp32 was compared with torch:cpu:fp32 alone"
    )
    assert {one: one.read_bytes() for one in folder.path.rglob("*") if one.is_file()} == before

    # Also where an earlier version kept it: the student is judged again, and fails.
    recipe = folder.read_recipe([f"validate.pair={list(PAIR)}"])
    assert recipe.validation.pair == PAIR
    folder.write_recipe(recipe)
    assert main(["validate", path, "--set", "budget.student_drop=0.02"]) == 5
    assert decision_of(capsys).startswith("Do not ship: the student is ")
    # The report alone, and a run from a later stage, end with what is recorded.
    for first in ("benchmark", "report"):
        monkeypatch.setattr(console, "_document_written", False)
        assert main(["run", path, "--from", first]) == 5
        assert decision_of(capsys).startswith("Do not ship: the student is ")
    assert "Do not ship" in report.read_text(encoding="utf-8")
    # It is not, where the settings have changed since.
    changed = ["--set", "report.title=Bolts", "--set", "budget.student_drop=0.9"]
    assert main(["run", path, "--from", "report", *changed]) == 0
    assert decision_of(capsys) == (
        f"Not checked: validate: budget changed in the recipe. Run: dskd-compress validate {path}"
    )
    assert main(["run", path, "--set", f"validate.pair={list(PAIR)}"]) == 2


def test_a_student_that_always_says_the_commonest_class_is_not_shipped(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished.copy(tmp_path / "run")
    model, info = load_trained(folder / "student.safetensors")
    state = model.state_dict()
    state["classifier.bias"][0] += 1000
    save_weights(folder / "student.safetensors", state, info)
    assert main(["export", str(folder.path), *EXPORT]) == 0
    assert main(["validate", str(folder.path), "--set", "budget.student_drop=null"]) == 5
    assert decision_of(capsys) == (
        "Do not ship: the student is right on 10.0 % of 70 images; always answering '0' gives 10.0 %."
    )


def test_export_validate_benchmark_and_report_name_one_model(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything was timed the smallest, then the fastest."""
    folder = finished.copy(tmp_path / "run")
    path, loose = str(folder.path), ["--set", "budget.int8.top1_drop=0.5", "--set", "benchmark.teacher=false"]

    def shipped() -> str:
        assert main(["report", path]) == 0
        capsys.readouterr()
        (line,) = [
            line
            for line in (folder / "report.md").read_text(encoding="utf-8").splitlines()
            if "| To ship |" in line
        ]
        return line.split("|")[2].split()[0]

    assert main(["export", path, "--precision", "auto", *EXPORT, *loose]) == 0
    decision = decision_of(capsys)
    assert decision.startswith("Ship int8 on cpu: ")
    assert "the smallest of 2 that pass (" in decision
    assert decision.endswith("; not timed on cpu.")
    assert shipped() == "int8"

    assert main(["benchmark", path, *loose]) == 0
    decision = decision_of(capsys)
    rows = read_document(folder / "benchmark.json", BenchmarkDocument).rows
    timed = {
        row.precision: row.latency.p50_ms
        for row in rows
        if row.latency is not None and (row.runner, row.part, row.batch) == ("onnxruntime", "engine", 1)
    }
    assert set(timed) == {"fp32", "int8"}
    fastest = min(timed, key=lambda precision: timed[precision])
    assert decision.startswith(f"Ship {fastest} on ")
    assert decision.endswith(" ms p99 in ONNX Runtime.") or "timing unstable" in decision
    assert shipped() == fastest
    assert main(["validate", path, *loose]) == 0
    assert decision_of(capsys) == decision
