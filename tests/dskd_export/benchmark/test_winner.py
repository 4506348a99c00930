"""What is shipped: one function, from documents that are made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from export_document_support import make_provenance

from dskd_export.benchmark.candidates import find_slower, list_slower
from dskd_export.benchmark.winner import decide
from dskd_export.documents.base import DataFacts, Interval
from dskd_export.documents.benchmark import BenchmarkDocument, BenchmarkRow, Latency, RowJudgement
from dskd_export.documents.validation import Check, Judgement, StudentJudgement, ValidationDocument, Verdict
from dskd_export.report.choices import Source, best_of, choices
from dskd_export.report.load import Run
from dskd_export.validation.verdicts import conclude, reason_of, worst_of

PROVENANCE = make_provenance("dskd-compress validate")
DATA = DataFacts(
    source="x", sha256="0", sha256_of="content", train_images=None, val_images=300, classes=["cat", "dog"]
)


def check(verdict: Verdict, needed: int | None = None, detail: str = "") -> Check:
    return Check(
        name="top-1 drop",
        value=0.0,
        limit=0.01,
        comparison="<=",
        verdict=verdict,
        detail=detail or f"{verdict} in words",
        images_needed=needed,
    )


def judgement(
    precision: str, verdict: str, size_mb: float | None = 1.0, runner: str = "onnxruntime:cpu"
) -> Judgement:
    return Judgement(
        runner=f"{runner}:{precision}",
        precision=precision,
        provider=runner.partition(":")[2],
        verdict=verdict,  # type: ignore[arg-type]
        reason=f"{precision} {verdict}",
        size_mb=size_mb,
    )


def validated(*judgements: Judgement, student: Verdict = "PASS", bundle: Verdict = "PASS") -> ValidationDocument:
    of_student = StudentJudgement(verdict=student, reason="about the student", checks=[])
    checks = [check(bundle)]
    verdict, reason = conclude(of_student, checks, judgements)
    return ValidationDocument(
        verdict=verdict,
        reason=reason,
        student=of_student,
        reference="torch:cpu:fp32",
        accuracy={},
        judgements=list(judgements),
        preprocess=None,
        checks=checks,
        passed=verdict == "PASS",
        data=DATA,
        bundle_sha256="b" * 64,
        provenance=PROVENANCE,
    )


def row(precision: str, p50: float | None, size_mb: float | None = 1.0, **changes: Any) -> BenchmarkRow:
    latency = None
    if p50 is not None:
        names = ("p50", "p90", "p95", "p99", "p999", "mean", "min", "max")
        facts: dict[str, Any] = {f"{name}_ms": p50 for name in names}
        latency = Latency(**facts, coefficient_of_variation=0, iterations=9, warmup_iterations=9, stable=True)
    values: dict[str, Any] = {
        "model": "student",
        "runner": "onnxruntime",
        "provider": "cpu",
        "precision": precision,
        "batch": 1,
        "threads": 2,
        "part": "engine",
        "latency": latency,
        "throughput_images_per_s": None if p50 is None else 1e3 / p50,
        "size_mb": size_mb,
        "unavailable": "" if p50 is not None else "it cannot be run here",
    }
    return BenchmarkRow(**{**values, **changes})


def timed(
    *rows: BenchmarkRow, bundle: str = "b" * 64, slow: dict[str, Verdict] | None = None
) -> BenchmarkDocument:
    judgements = [
        RowJudgement(
            model="student",
            runner="onnxruntime",
            provider="cpu",
            precision=precision,
            batch=8,  # the budget is of another batch than the rows that are compared
            threads=2,
            part="engine",
            checks=[check(verdict)],
        )
        for precision, verdict in (slow or {}).items()
    ]
    return BenchmarkDocument(rows=list(rows), judgements=judgements, bundle_sha256=bundle, provenance=PROVENANCE)


MODELS = [judgement("fp32", "PASS", 9.0), judgement("fp16", "PASS", 5.0), judgement("int8", "PASS", 3.0)]
ROWS = [row("fp32", 1.0, 9.0), row("fp16", 2.0, 5.0), row("int8", 3.0, 3.0)]


def named(validation: ValidationDocument, benchmark: BenchmarkDocument | None) -> str | None:
    """The winner, which is the same one for the report."""
    decision = decide(validation, benchmark)
    best = best_of(choices([Source("run", Run(folder=Path("run"), validation=validation, benchmark=benchmark))]))
    (one,) = best.values()
    name = decision.model.name if decision.model is not None and decision.verdict == "PASS" else None
    assert (None if one is None else f"{one.row.runner}:{one.row.provider}:{one.row.precision}") == name
    return name


def test_the_smallest_where_nothing_was_timed_and_that_is_said() -> None:
    validation = validated(*MODELS)
    assert named(validation, None) == "onnxruntime:cpu:int8"
    assert decide(validation, None).sentence == (
        "Ship int8: about the student, the smallest of 3 that pass (3 MB); not timed on any device."
    )


def test_the_fastest_where_they_were_timed() -> None:
    validation, benchmark = validated(*MODELS), timed(*ROWS)
    assert named(validation, benchmark) == "onnxruntime:cpu:fp32"
    decision = decide(validation, benchmark)
    assert decision.timed
    assert decision.sentence == "Ship fp32 on a CPU: about the student, 1 ms p99 in ONNX Runtime."
    assert decision.detail == "onnxruntime:cpu:fp32, the fastest of 3 that pass: p50 1 ms."


def test_only_what_passes() -> None:
    failing = [judgement("fp32", "FAIL"), judgement("fp16", "NOT SHOWN"), *MODELS[2:]]
    assert named(validated(*failing), timed(*ROWS)) == "onnxruntime:cpu:int8"
    assert named(validated(*failing[:2]), timed(*ROWS)) is None


def test_a_model_that_misses_the_speed_budget_is_passed_over() -> None:
    """By the budget's own batch, whichever batch is compared."""
    for verdict in ("FAIL", "NOT SHOWN", "NOT JUDGED"):
        benchmark = timed(*ROWS, slow={"fp32": verdict, "fp16": "PASS"})  # type: ignore[dict-item]
        assert named(validated(*MODELS), benchmark) == "onnxruntime:cpu:fp16"


def test_times_of_another_bundle_say_nothing() -> None:
    assert named(validated(*MODELS), timed(*ROWS, bundle="c" * 64)) == "onnxruntime:cpu:int8"


def test_what_could_not_be_timed_here_does_not_win_as_the_smallest() -> None:
    assert named(validated(*MODELS), timed(row("int8", None))) == "onnxruntime:cpu:fp16"
    assert named(validated(judgement("int8", "NOT RUN"), *MODELS[:2]), None) == "onnxruntime:cpu:fp16"


def test_torch_is_taken_where_nothing_else_was_timed() -> None:
    torch = row("fp32", 0.1, None, runner="torch")
    assert named(validated(*MODELS), timed(torch, *ROWS)) == "onnxruntime:cpu:fp32"
    assert named(validated(MODELS[0]), timed(torch)) == "torch:cpu:fp32"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "slower than fp32: 2 against 1 ms"),
        ({"runner": "tensorrt", "provider": "cuda"}, ""),  # another runner
        ({"threads": 1}, ""),
        ({"precision": "fp16"}, ""),  # not quantised
        ({"latency": 1.05}, ""),  # within the noise of both
        ({"stable": False}, ""),
        ({"no interval": True}, ""),
    ],
)
def test_a_quantised_model_is_marked_as_slower_by_its_interval(changes: dict[str, Any], said: str) -> None:
    p50 = changes.pop("latency", 2.0)
    interval, stable = not changes.pop("no interval", False), changes.pop("stable", True)
    one = row(changes.pop("precision", "int8"), p50, **changes)
    assert one.latency is not None
    ends = {"p50": Interval(value=p50, low=0.9 * p50, high=1.1 * p50)} if interval else {}
    one = one.model_copy(
        update={"latency": one.latency.model_copy(update={"intervals_ms": ends, "stable": stable})}
    )
    other = row("fp32", 1.0)
    assert other.latency is not None
    ends = {"p50": Interval(value=1.0, low=0.95, high=1.05)}
    other = other.model_copy(update={"latency": other.latency.model_copy(update={"intervals_ms": ends})})
    assert find_slower(one, [one, other]) == said
    assert find_slower(other, [one, other]) == ""
    expected = [f"student onnxruntime:cpu:int8, batch 1: {said}"] if said else []
    assert list_slower(timed(one, other)) == expected


def test_a_model_is_judged_on_its_own_runner_where_it_was() -> None:
    engine = judgement("fp16", "FAIL", runner="tensorrt:cuda")
    rows = [row("fp16", 2.0), row("fp16", 1.0, runner="tensorrt", provider="cuda")]
    assert named(validated(MODELS[0], MODELS[1], engine), timed(*rows)) == "onnxruntime:cpu:fp16"
    # Where it was not, the worst of its precision counts.
    rows = [row("fp16", 1.0, provider="cuda"), row("fp32", 2.0)]
    assert named(validated(MODELS[0], MODELS[1], engine), timed(*rows)) == "onnxruntime:cpu:fp32"


@pytest.mark.parametrize("benchmark", [None, timed(*ROWS)])
def test_nothing_wins_where_the_student_or_the_bundle_fails(benchmark: BenchmarkDocument | None) -> None:
    for validation in (validated(*MODELS, student="FAIL"), validated(*MODELS, bundle="FAIL")):
        assert named(validation, benchmark) is None
        decision = decide(validation, benchmark)
        assert (decision.verdict, decision.model) == ("FAIL", None)
        assert decision.sentence.startswith("Do not ship: ")
    assert "the student is about the student" in decide(validated(*MODELS, student="FAIL"), benchmark).sentence


def test_what_a_device_cannot_know_of_the_student_is_no_pass() -> None:
    without_teacher = check("NOT JUDGED").model_copy(update={"detail": "a bundle holds no teacher"})
    for verdict, checks in (("PASS", [check("PASS"), without_teacher]), ("NOT JUDGED", [without_teacher])):
        validation = validated(*MODELS)
        student = StudentJudgement(verdict=verdict, reason="a bundle holds no teacher", checks=checks)
        decision = decide(validation.model_copy(update={"student": student}), None)
        assert decision.verdict == "NOT JUDGED"
        assert decision.model is not None
        assert decision.model.name == named(validation, None)
        assert "a bundle holds no teacher" in decision.sentence
        assert not decision.sentence.startswith("Ship")


def test_what_is_not_shown_is_a_candidate_and_no_winner() -> None:
    few = judgement("fp16", "NOT SHOWN")
    decision = decide(validated(few, judgement("int8", "FAIL")), None)
    assert decision.verdict == "NOT SHOWN"
    assert decision.model is not None
    assert decision.model.name == few.runner
    assert "fp16 NOT SHOWN" in decision.sentence
    unproven = decide(validated(*MODELS, student="NOT SHOWN"), None)
    assert (unproven.verdict, named(validated(*MODELS, student="NOT SHOWN"), None)) == ("NOT SHOWN", None)
    assert "about the student" in unproven.sentence


@pytest.mark.parametrize("benchmark", [None, timed(*ROWS)])
@pytest.mark.parametrize("verdict", ["PASS", "NOT SHOWN", "FAIL"])
def test_nothing_is_decided_by_a_pair(verdict: str, benchmark: BenchmarkDocument | None) -> None:
    candidate = judgement("int8", verdict)
    found, reason = conclude(None, [check("PASS")], [candidate])
    pair = validated(candidate).model_copy(update={"student": None, "verdict": found, "reason": reason})
    assert named(pair, benchmark) is None
    decision = decide(pair, benchmark)
    assert (decision.verdict, decision.model) == ("NOT JUDGED", None)
    assert decision.sentence.startswith("Not checked: onnxruntime:cpu:int8 was compared with torch:cpu:fp32 alone")
    assert "dskd-compress validate RUN" in decision.sentence


def test_nothing_is_decided_without_a_validation() -> None:
    assert decide(None, timed(*ROWS)).verdict == "NOT JUDGED"


# --- verdicts


@pytest.mark.parametrize(
    ("verdicts", "worst"),
    [
        ([], "NOT JUDGED"),
        (["PASS", "NOT JUDGED", "NOT RUN"], "PASS"),
        (["PASS", "NOT SHOWN"], "NOT SHOWN"),
        (["NOT SHOWN", "FAIL", "PASS"], "FAIL"),
        (["NOT JUDGED", "NOT RUN"], "NOT JUDGED"),
    ],
)
def test_the_worst_of_several(verdicts: list[str], worst: str) -> None:
    assert worst_of(verdicts) == worst


def test_the_reason_names_what_decides() -> None:
    assert reason_of([check("PASS"), check("PASS")]) == "2 checks passed"
    assert reason_of([check("PASS"), check("NOT JUDGED", detail="no images")]) == (
        "1 check passed, 1 not judged (top-1 drop: no images)"
    )
    few = [check("NOT SHOWN", 400), check("NOT SHOWN", 900, "the larger one"), check("PASS")]
    assert reason_of(few) == "the larger one"
    assert reason_of([*few, check("NOT SHOWN", None, "at the limit")]) == "at the limit"
    assert reason_of([*few, check("FAIL")]) == "top-1 drop is 0, the limit is <= 0.01: FAIL in words"


def test_a_whole_validation_is_as_good_as_its_worst_part() -> None:
    assert validated(*MODELS).verdict == "PASS"
    assert validated(*MODELS, judgement("bf16", "NOT RUN")).verdict == "PASS"
    assert validated(*MODELS, judgement("fp8", "NOT SHOWN")).reason == "onnxruntime:cpu:fp8: fp8 NOT SHOWN"
    failing = validated(*MODELS, judgement("fp8", "FAIL"), student="NOT SHOWN")
    assert (failing.verdict, failing.reason) == ("FAIL", "onnxruntime:cpu:fp8: fp8 FAIL")
    assert validated(*MODELS, student="FAIL").reason == "student: about the student"
    assert validated(judgement("bf16", "NOT RUN")).verdict == "NOT JUDGED"
