from __future__ import annotations

from typing import Any

import pytest
from run_support import Finished

from dskd_compress.console import Output
from dskd_compress.stages.judge import print_validation, refuse_failed
from dskd_export.documents import Check, Judgement, ValidationDocument, read_document
from dskd_export.errors import GateFailed

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
    detail="cannot be shown with 256 images; about 390 would do",
)
NOT_RUN = Judgement(
    runner="onnxruntime:cpu:bf16", precision="bf16", provider="cpu", verdict="NOT RUN", reason="it has no kernel"
)


def judged(finished: Finished, *checks: Check, **changes: Any) -> Judgement:
    document = read_document(finished.folder / "validation.json", ValidationDocument)
    verdict = "FAIL" if any(check.failed for check in checks) else "PASS"
    reason = "; ".join(check.name for check in checks if check.failed)
    update = {"checks": list(checks), "verdict": verdict, "reason": reason, **changes}
    return document.judgements[0].model_copy(update=update)


def of(finished: Finished, *judgements: Judgement, checks: list[Check] | None = None) -> ValidationDocument:
    document = read_document(finished.folder / "validation.json", ValidationDocument)
    checks = checks or []
    passed = not any(check.failed for check in checks) and all(one.verdict != "FAIL" for one in judgements)
    return document.model_copy(update={"judgements": list(judgements), "checks": checks, "passed": passed})


def test_all_passed(finished: Finished) -> None:
    refuse_failed(of(finished, judged(finished, GOOD), NOT_RUN))


def test_every_limit_that_was_crossed_is_named(finished: Finished) -> None:
    with pytest.raises(GateFailed) as caught:
        refuse_failed(of(finished, judged(finished, GOOD, BAD, NONE), checks=[BAD]))
    assert caught.value.message == (
        "The exported student does not pass: bundle: KL is 0.25, the limit is <= 0.0001; "
        "onnxruntime:cpu:fp32: KL; top-1 drop."
    )
    assert caught.value.exit_code == 5
    assert "limits in validate and budget" in str(caught.value.hint)


def test_too_few_images_ask_for_more(finished: Finished) -> None:
    with pytest.raises(GateFailed, match="Validate on more images"):
        refuse_failed(of(finished, judged(finished, GOOD, FEW)))


def test_the_hint_is_the_likely_cause(finished: Finished) -> None:
    judgement = judged(finished, BAD, causes=["model.fp32.onnx: the channels come in the order BGR"])
    with pytest.raises(GateFailed) as caught:
        refuse_failed(of(finished, judgement))
    assert caught.value.hint == "Likely cause: model.fp32.onnx: the channels come in the order BGR."


def test_one_row_a_limit_and_one_a_model(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    int8 = judged(
        finished,
        FEW,
        runner="onnxruntime:cpu:int8",
        precision="int8",
        native=False,
        native_reason="computed in fp32 on cpu: 0 of 5",
        causes=["the conversion"],
    )
    document = of(finished, judged(finished, GOOD, BAD, NONE), int8, NOT_RUN)
    accuracy = {**document.accuracy, "onnxruntime:cpu:int8": document.accuracy["torch:cpu:fp32"]}
    print_validation(document.model_copy(update={"accuracy": accuracy}), Output(json_output=False))
    printed = capsys.readouterr()
    rows = [" ".join(line.split()) for line in printed.out.splitlines()]

    def row(*parts: str) -> bool:
        return any(all(part in line for part in parts) for line in rows)

    assert row("cosine", ">= 0.9999", "PASS")
    assert row("KL", "0.25", "FAIL")
    assert row("top-1 drop", "not", "FAIL")
    assert row("int8", "top-1 drop", "0.015", "<= 0.01", "NOT SHOWN")
    assert row("bf16", "NOT RUN")
    assert row("onnxruntime:cpu:int8", "FAIL (computed")
    assert "the conversion" in printed.err
    assert "onnxruntime:cpu:bf16 was not run: it has no kernel" in printed.err


def test_the_smallest_that_passes_is_named(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    fp16 = judged(finished, GOOD, runner="onnxruntime:cpu:fp16", size_mb=0.1)
    document = of(finished, judged(finished, GOOD), fp16)
    accuracy = {**document.accuracy, "onnxruntime:cpu:fp16": document.accuracy["torch:cpu:fp32"]}
    print_validation(document.model_copy(update={"accuracy": accuracy}), Output(json_output=False))
    assert "The smallest that passes: onnxruntime:cpu:fp16, 0.1 MB" in capsys.readouterr().out
