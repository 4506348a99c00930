from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dskd_export.report.decision import decide, latency_pair, student_accuracy
from dskd_export.report.load import Run, load_run


@pytest.fixture
def run(full_run: Path) -> Run:
    return load_run(full_run)


def test_the_line_holds_every_figure(run: Run) -> None:
    decision = decide(run, [])
    assert decision.verdict == "PASS"
    text = decision.sentence.replace("\u00a0", " ")
    for part in (
        "keeps 98.9 % of the teacher's top-1 accuracy",
        "95 % interval 96.7–100.9 %",
        "19.4× fewer parameters",
        "60.8× fewer MACs an image",
        "18.8× smaller on disk",
        "faster (p50 at batch 1",
        "ONNX Runtime, CPU, fp32, 2 threads",
    ):
        assert part in text


def test_latency_compares_like_with_like(run: Run) -> None:
    assert run.benchmark is not None
    pair = latency_pair(run.benchmark)
    assert pair is not None
    teacher, student = pair
    assert (teacher.model, student.model) == ("teacher", "student")
    same = {"runner", "provider", "precision", "batch", "threads", "part"}
    assert teacher.model_dump(include=same) == student.model_dump(include=same)
    assert (student.runner, student.batch, student.part) == ("onnxruntime", 1, "engine")
    assert teacher.latency is not None
    assert student.latency is not None
    fact = decide(run, []).facts[-1]
    assert fact.value == f"{teacher.latency.p50_ms / student.latency.p50_ms:.2f}× faster"


def test_no_pair_without_the_teacher(run: Run) -> None:
    assert run.benchmark is not None
    rows = [row for row in run.benchmark.rows if row.model == "student"]
    alone = run.benchmark.model_copy(update={"rows": rows})
    assert latency_pair(alone) is None
    assert "no runner measured both" in decide(replace(run, benchmark=alone), []).facts[-1].detail


def test_a_failed_gate_names_its_checks(make_run: Callable[..., Path]) -> None:
    decision = decide(load_run(make_run(gate_passes=False)), [])
    expected = "onnxruntime:cpu:fp32: max abs / scale is 0.0032, the limit is <= 0.0001"
    assert (decision.verdict, decision.reason) == ("FAIL", expected)


def test_the_verdict_is_that_of_the_validation(run: Run, make_run: Callable[..., Path]) -> None:
    assert run.validation is not None
    assert decide(run, []).reason == run.validation.reason
    several = decide(load_run(make_run(precisions=True)), [])
    assert several.verdict == "NOT SHOWN"
    assert several.reason == ("onnxruntime:cpu:int8: 4 of 360 images lost, 1 gained; 620 images would show it")


def test_a_stale_validation_decides_nothing(run: Run) -> None:
    assert decide(run, ["validate"]).verdict == "STALE"


def test_what_is_not_known_says_why(run: Run) -> None:
    decision = decide(replace(run, student=None, validation=None, benchmark=None), [])
    assert decision.verdict == "NOT CHECKED"
    assert decision.sentence == "There is nothing to compare yet."
    assert not any(fact.known for fact in decision.facts)
    assert all(fact.detail for fact in decision.facts)


def test_the_exported_accuracy_counts_only_on_the_same_number_of_images(run: Run) -> None:
    assert run.validation is not None
    whole = student_accuracy(run)
    assert whole is not None
    assert whole.source.startswith("exported, onnxruntime")
    few = {name: value.model_copy(update={"images": 16}) for name, value in run.validation.accuracy.items()}
    part = student_accuracy(replace(run, validation=run.validation.model_copy(update={"accuracy": few})))
    assert part is not None
    assert part.source == "distill.json, best epoch"
