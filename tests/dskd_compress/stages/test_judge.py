from __future__ import annotations

import pytest
from run_support import Finished

from dskd_compress.console import Output
from dskd_compress.stages.judge import print_validation, refuse_failed
from dskd_export.documents import Check, ValidationDocument, read_document
from dskd_export.errors import GateFailed

GOOD = Check(name="cosine", value=0.99999, limit=0.9999, comparison=">=", passed=True)
BAD = Check(name="KL", value=0.25, limit=1e-4, comparison="<=", passed=False)
NONE = Check(name="top-1 drop", value=None, limit=0.005, comparison="<=", passed=False, detail="NaN")


def with_checks(finished: Finished, *checks: Check) -> ValidationDocument:
    document = read_document(finished.folder / "validation.json", ValidationDocument)
    return document.model_copy(update={"checks": list(checks)})


def test_all_passed(finished: Finished) -> None:
    refuse_failed(with_checks(finished, GOOD))


def test_every_limit_that_was_crossed_is_named(finished: Finished) -> None:
    with pytest.raises(GateFailed) as caught:
        refuse_failed(with_checks(finished, GOOD, BAD, NONE))
    assert caught.value.message == (
        "The exported student does not pass: KL is 0.25, the limit is <= 0.0001; "
        "top-1 drop is not measurable, the limit is <= 0.005."
    )
    assert caught.value.exit_code == 5


def test_one_row_a_limit(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    print_validation(with_checks(finished, GOOD, BAD, NONE), Output(json_output=False))
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert any("cosine" in row and ">= 0.9999" in row and "PASS" in row for row in rows)
    assert any("KL" in row and "0.25" in row and "FAIL" in row for row in rows)
    assert any("top-1 drop" in row and "not measurable" in row and "FAIL" in row for row in rows)
