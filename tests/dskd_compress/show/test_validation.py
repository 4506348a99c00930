from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from run_support import Finished

from dskd_compress.console import Output
from dskd_compress.show.benchmark import refuse_slow_anywhere
from dskd_compress.show.validation import (
    decision_in,
    print_decision,
    print_validation,
    refuse_failed,
    refuse_run,
    refuse_undecided,
)
from dskd_export.benchmark.winner import decide
from dskd_export.documents.base import read_document
from dskd_export.documents.benchmark import BenchmarkDocument, RowJudgement
from dskd_export.documents.runner_name import RunnerName
from dskd_export.documents.validation import Check, Judgement, StudentJudgement, ValidationDocument, Verdict
from dskd_export.errors import GateFailed, NotShown
from dskd_export.validation.verdicts import conclude, reason_of, verdict_of

GOOD = Check(name="cosine", value=0.99999, limit=0.9999, comparison=">=", verdict="PASS")
BAD = Check(name="KL", value=0.25, limit=1e-4, comparison="<=", verdict="FAIL")
NONE = Check(name="top-1 drop", value=None, limit=0.005, comparison="<=", verdict="FAIL", detail="NaN")
FEW = Check(
    name="top-1 drop",
    value=0.0,
    bound=0.015,
    limit=0.01,
    comparison="<=",
    verdict="NOT SHOWN",
    detail="0 of 256 images lost; 390 images would show it",
    images_needed=390,
)
NOT_RUN = Judgement(
    runner="onnxruntime:cpu:bf16", precision="bf16", provider="cpu", verdict="NOT RUN", reason="it has no kernel"
)


def judged(finished: Finished, *checks: Check, **changes: Any) -> Judgement:
    document = read_document(finished.folder / "validation.json", ValidationDocument)
    update = {"checks": list(checks), "verdict": verdict_of(checks), "reason": reason_of(checks), **changes}
    return document.judgements[0].model_copy(update=update)


def of(
    finished: Finished,
    *judgements: Judgement,
    checks: list[Check] | None = None,
    student: StudentJudgement | None = None,
) -> ValidationDocument:
    document = read_document(finished.folder / "validation.json", ValidationDocument)
    checks = checks or []
    verdict, reason = conclude(student, checks, judgements)
    update = {"judgements": list(judgements), "checks": checks, "student": student}
    return document.model_copy(
        update={**update, "verdict": verdict, "reason": reason, "passed": verdict == "PASS"}
    )


def test_all_passed(finished: Finished) -> None:
    refuse_failed(of(finished, judged(finished, GOOD), NOT_RUN))


def test_every_limit_that_was_crossed_is_named(finished: Finished) -> None:
    with pytest.raises(GateFailed) as caught:
        refuse_failed(of(finished, judged(finished, GOOD, BAD, NONE), checks=[BAD]))
    assert caught.value.message == (
        "The exported student does not pass: bundle: KL is 0.25, the limit is <= 0.0001; onnxruntime:cpu:fp32: "
        "KL is 0.25, the limit is <= 0.0001; top-1 drop is not measurable, the limit is <= 0.005: NaN."
    )
    assert caught.value.exit_code == 5
    assert "limits in validate and budget" in str(caught.value.hint)


def test_too_few_images_are_another_code_and_say_how_many_would_do(finished: Finished) -> None:
    document = of(finished, judged(finished, GOOD, FEW))
    with pytest.raises(NotShown, match="0 of 256 images lost; 390 images would show it") as caught:
        refuse_failed(document)
    assert caught.value.exit_code == 6
    assert "390 labelled images" in str(caught.value.hint)
    assert "--accept-unproven" in str(caught.value.hint)
    refuse_failed(document, accept_unproven=True)


def test_a_failure_beats_what_is_not_shown_and_cannot_be_accepted(finished: Finished) -> None:
    int8 = judged(finished, BAD, runner=RunnerName("onnxruntime:cpu:int8"))
    with pytest.raises(GateFailed) as caught:
        refuse_failed(of(finished, judged(finished, FEW), int8), accept_unproven=True)
    assert "390" not in caught.value.message


def test_nothing_that_was_run_shows_nothing(finished: Finished) -> None:
    document = of(finished, NOT_RUN)
    assert (document.verdict, document.passed) == ("NOT JUDGED", False)
    with pytest.raises(NotShown, match="no model was run"):
        refuse_failed(document)


def test_the_hint_is_the_likely_cause(finished: Finished) -> None:
    judgement = judged(finished, BAD, causes=["model.fp32.onnx: the channels come in the order BGR"])
    with pytest.raises(GateFailed) as caught:
        refuse_failed(of(finished, judgement))
    assert caught.value.hint == "Likely cause: model.fp32.onnx: the channels come in the order BGR."


def test_a_bundle_is_not_told_to_train(finished: Finished) -> None:
    document = of(
        finished, judged(finished, GOOD), student=StudentJudgement(verdict="FAIL", reason="bad", checks=[])
    )
    bundle = document.model_copy(update={"data": document.data.model_copy(update={"train_images": None})})
    for one, trains in ((document, True), (bundle, False)):
        with pytest.raises(GateFailed) as caught:
            refuse_failed(one)
        assert ("--epochs" in str(caught.value.hint)) is trains


def test_export_needs_one_model_to_ship(finished: Finished) -> None:
    student = StudentJudgement(verdict="PASS", reason="good", checks=[])
    bad, few = judged(finished, BAD, runner=RunnerName("onnxruntime:cpu:int8")), judged(finished, FEW)
    refuse_undecided(decide(of(finished, judged(finished, GOOD), bad, student=student), None), False)
    unproven = decide(of(finished, few, bad, student=student), None)
    assert unproven.model is not None
    assert unproven.model.name == few.runner
    with pytest.raises(NotShown):
        refuse_undecided(unproven, False)
    refuse_undecided(unproven, True)
    with pytest.raises(GateFailed):
        refuse_undecided(decide(of(finished, bad, student=student), None), True)
    with pytest.raises(GateFailed, match="exit code 5"):  # of a pair
        refuse_undecided(decide(of(finished, judged(finished, GOOD)), None), True)


@pytest.mark.parametrize(
    ("accuracy", "speed", "accept", "expected"),
    [
        (GOOD, "PASS", False, None),
        (FEW, "PASS", False, NotShown),
        (FEW, "PASS", True, None),
        (GOOD, "NOT SHOWN", False, NotShown),
        (GOOD, "NOT SHOWN", True, None),
        (FEW, "FAIL", False, GateFailed),
        (BAD, "NOT SHOWN", False, GateFailed),
        (FEW, "FAIL", True, GateFailed),
    ],
)
def test_a_run_ends_with_the_worst_code_of_its_stages(
    accuracy: Check, speed: Verdict, accept: bool, expected: type[Exception] | None, finished: Finished
) -> None:
    timed = read_document(finished.folder / "benchmark.json", BenchmarkDocument)
    row = next(row for row in timed.rows if row.model == "student")
    check = Check(name="p99 latency (ms)", value=1.0, limit=1.0, comparison="<=", verdict=speed)
    keys = set(RowJudgement.model_fields) - {"checks"}
    judgement = RowJudgement(**row.model_dump(include=keys), checks=[check])
    validation = of(finished, judged(finished, accuracy))
    benchmark = timed.model_copy(update={"judgements": [judgement]})
    if expected is None:
        refuse_run(validation, benchmark, accept)
        return
    with pytest.raises(expected):
        refuse_run(validation, benchmark, accept)


def test_of_several_devices_a_failure_beats_what_is_not_shown(finished: Finished) -> None:
    timed = read_document(finished.folder / "benchmark.json", BenchmarkDocument)
    row = next(row for row in timed.rows if row.model == "student")
    keys = set(RowJudgement.model_fields) - {"checks"}

    def device(speed: Verdict) -> BenchmarkDocument:
        check = Check(name="p99 latency (ms)", value=1.0, limit=1.0, comparison="<=", verdict=speed)
        judgement = RowJudgement(**row.model_dump(include=keys), checks=[check])
        return timed.model_copy(update={"judgements": [judgement]})

    with pytest.raises(GateFailed):
        refuse_slow_anywhere([device("NOT SHOWN"), device("FAIL")])
    with pytest.raises(NotShown):
        refuse_slow_anywhere([device("PASS"), device("NOT JUDGED")])
    refuse_slow_anywhere([device("PASS"), timed])


def test_stages_that_were_not_run_refuse_nothing() -> None:
    refuse_run(None, None, False)


def test_one_row_a_limit_and_one_a_model(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    int8 = judged(
        finished,
        FEW,
        runner=RunnerName("onnxruntime:cpu:int8"),
        precision="int8",
        native=False,
        native_reason="computed in fp32 on cpu: 0 of 5",
        computed_in="fp32",
        causes=["the conversion"],
    )
    document = of(finished, judged(finished, GOOD, BAD, NONE), int8, NOT_RUN)
    accuracy = {**document.accuracy, "onnxruntime:cpu:int8": document.accuracy["torch:cpu:fp32"]}
    document = document.model_copy(update={"accuracy": accuracy})
    print_validation(document, decide(document, None), Output(json_output=False))
    printed = capsys.readouterr()
    rows = [" ".join(line.split()) for line in printed.out.splitlines()]

    def row(*parts: str) -> bool:
        return any(all(part in line for part in parts) for line in rows)

    assert row("cosine", ">= 0.9999", "PASS")
    assert row("KL", "0.25", "FAIL")
    assert row("top-1 drop", "-", "FAIL")
    assert row("top-1 drop", "0.015", "<= 0.01", "NOT SHOWN")
    assert row("bf16", "NOT RUN")
    assert row("onnxruntime:cpu:int8 │ NOT SHOWN │ fp32")
    assert "onnxruntime:cpu:int8: NOT SHOWN: 0 of 256 images lost; 390 images would show it." in rows
    assert "the conversion" in printed.err
    assert "onnxruntime:cpu:bf16 was not run: it has no kernel" in printed.err


def test_a_verdict_is_not_cut_at_80_columns(finished: Finished) -> None:
    long = judged(finished, FEW, runner="onnxruntime:tensorrt:fp32", computed_in="fp32")
    document = of(finished, long, checks=[GOOD])
    output = Output(json_output=False)
    output.console = Console(file=(text := io.StringIO()), width=80, highlight=False)
    accuracy = {**document.accuracy, long.runner: document.accuracy["torch:cpu:fp32"]}
    print_validation(document.model_copy(update={"accuracy": accuracy}), decide(document, None), output)
    tables = [line for line in text.getvalue().splitlines() if "│" in line]
    assert max(map(len, tables)) <= 80
    assert sum("│ NOT SHOWN │" in line for line in tables) == 2
    assert sum("│ PASS      │" in line for line in tables) == 1


def test_the_decision_is_read_from_the_folder(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    document = read_document(finished.folder / "validation.json", ValidationDocument)
    decision = decision_in(finished.folder.path)
    assert decision == decide(document, read_document(finished.folder / "benchmark.json", BenchmarkDocument))
    output = Output(json_output=False)
    print_validation(document, decision, output)
    print_decision(decision, output)
    out = capsys.readouterr().out
    assert out.splitlines()[-2:] == [decision.sentence, decision.detail]
    assert out.count(decision.sentence) == 1
    assert decision.sentence.startswith("Ship fp32 on ")
    assert decision.detail.startswith("onnxruntime:cpu:fp32, the only model that passes: p50 ")
    assert decision_in(finished.folder.path / "nothing").verdict == "NOT JUDGED"
