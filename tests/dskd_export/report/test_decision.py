from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from dskd_export.report import build_report
from dskd_export.report.card import model_card
from dskd_export.report.choices import Source, best_of, choices
from dskd_export.report.decision import decide, decide_between, latency_pair
from dskd_export.report.load import Run, load_run
from dskd_export.report.render import escape_markdown


@pytest.fixture
def run(full_run: Path) -> Run:
    return load_run(full_run)


def test_the_facts_hold_every_figure(run: Run) -> None:
    decision = decide(run, [])
    assert decision.verdict == "PASS"
    facts = {
        fact.label: f"{fact.value} {fact.interval} {fact.detail}".replace("\u00a0", " ") for fact in decision.facts
    }
    for label, part in {
        "Accuracy retained": "98.9 % 95 % interval 96.7–100.9 %",
        "Parameters": "19.4× fewer",
        "MACs": "60.8× fewer",
        "Size on disk": "18.8× smaller",
        "Latency": "faster  p50 at batch 1",
    }.items():
        assert part in facts[label]
    assert "ONNX Runtime, CPU, fp32, 2 threads" in facts["Latency"]


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


def test_a_failed_gate_says_what_fails(make_run: Callable[..., Path]) -> None:
    decision = decide(load_run(make_run(gate_passes=False)), [])
    assert (decision.verdict, decision.reason) == ("FAIL", "")
    assert decision.sentence.startswith("Do not ship: onnxruntime:cpu:fp32 fails: max abs / scale is 0.0032")
    assert "To ship" not in {fact.label for fact in decision.facts}


def test_a_pass_says_what_it_leaves_out(run: Run, make_run: Callable[..., Path]) -> None:
    alone = "1.1 points below the teacher (97.8 % against 98.9 %) on 360 images, 5 allowed"
    assert alone in decide(run, []).reason.replace("\u00a0", " ")
    several = load_run(make_run(precisions=True))
    decision = decide(several, [], choices([Source("run", several)]))
    assert (decision.verdict, decision.facts[0].value) == ("PASS", "fp32")  # the only one of both that was timed
    assert decision.reason.endswith("; int8 is not shown to pass; bf16 was not run.")


@dataclass(frozen=True)
class Situation:
    settings: dict[str, Any]
    verdict: str
    sentence: str
    named: Sequence[str]


SITUATIONS = {
    "far below the teacher": Situation(
        {"images": 150, "student_right": 94, "teacher_right": 144, "student_drop": 0.02},
        "FAIL",
        "Do not ship: ",
        ("33.3 points below", "62.7 % against 96.0 %", "150 images"),
    ),
    "below the commonest class": Situation(
        {"images": 150, "student_right": 44, "teacher_right": 45, "commonest": 65, "student_drop": 0.02},
        "FAIL",
        "Do not ship: ",
        ("the student is right on 29.3 % of 150 images", "always answering '0' gives 43.3 %"),
    ),
    "too few images": Situation(
        {"images": 150, "student_right": 144, "teacher_right": 144, "commonest": 15, "student_drop": 0.01},
        "NOT SHOWN",
        "Not shown to be good enough: ",
        ("150 images", "390 images would show it"),
    ),
}


@pytest.mark.parametrize("situation", SITUATIONS.values(), ids=list(SITUATIONS))
def test_the_first_sentence_is_the_decision(make_run: Callable[..., Path], situation: Situation) -> None:
    folder = make_run(precisions=True, **situation.settings)
    run = load_run(folder)
    found = choices([Source("run", run)])
    decision = decide(run, [], found)
    assert decision.verdict == situation.verdict
    assert decision.sentence.startswith(situation.sentence)
    text = f"{decision.sentence} {decision.reason}".replace("\u00a0", " ")
    assert all(part in text for part in situation.named)
    assert "To ship" not in {fact.label for fact in decision.facts}
    assert set(best_of(found).values()) == {None}
    report = build_report(folder)
    for text in (report.markdown, model_card(run, name="someone/model")):
        assert f"**{situation.verdict}**: {escape_markdown(decision.sentence)}" in text
    several = decide_between([Source("run", run)], found, [])
    assert several.verdict == situation.verdict
    assert all(part.removeprefix("the student is ") in several.sentence for part in situation.named)


def test_an_older_validation_decides_nothing(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    document = json.loads((folder / "validation.json").read_text())
    for key in ("verdict", "reason", "student"):
        del document[key]
    (folder / "validation.json").write_text(json.dumps(document))
    decision = decide(load_run(folder), [])
    assert decision.verdict == "NOT CHECKED"
    assert "validate again" in decision.sentence
    assert "NOT CHECKED" in build_report(folder).markdown


def test_a_stale_validation_decides_nothing(run: Run) -> None:
    assert decide(run, ["validate"]).verdict == "STALE"


def test_what_is_not_known_says_why(run: Run) -> None:
    decision = decide(replace(run, student=None, validation=None, benchmark=None), [])
    assert decision.verdict == "NOT CHECKED"
    assert not any(fact.known for fact in decision.facts)
    assert all(fact.detail for fact in decision.facts)


def test_the_exported_accuracy_counts_only_on_the_same_number_of_images(run: Run) -> None:
    assert run.validation is not None
    whole = run.student_accuracy
    assert whole is not None
    assert whole.source.startswith("exported, onnxruntime")
    few = {name: value.model_copy(update={"images": 16}) for name, value in run.validation.accuracy.items()}
    part = replace(run, validation=run.validation.model_copy(update={"accuracy": few})).student_accuracy
    assert part is not None
    assert part.source == "distill.json, best epoch"
