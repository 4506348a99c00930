from __future__ import annotations

import json

import pytest

from dskd_compress import console
from dskd_compress.cli import main
from dskd_export.doctor import Finding


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(console, "_document_written", False)


@pytest.fixture
def found(monkeypatch):
    """Findings that the command gets; the real ones are tested with the checks."""
    findings = [
        Finding(code="DSKD-I100", level="ok", what="Python 3.11"),
        Finding(code="DSKD-W115", level="warning", what="scikit-learn is not installed", cure="pip install it"),
    ]
    asked = []

    def diagnose(purpose=None, *, provider=None):
        asked.append(purpose)
        return findings

    monkeypatch.setattr("dskd_export.doctor.diagnose", diagnose)
    return findings, asked


def test_warnings_do_not_fail(found, capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "DSKD-W115" in out
    assert "pip install it" in out
    assert found[1] == [None]
    can, cannot, rest = out.splitlines()[-3:]
    assert (can[:4], cannot[:7], rest[:13]) == ("Can:", "Cannot:", "For the rest:")


@pytest.mark.parametrize("purpose", ["train", "export", "benchmark"])
def test_purpose_is_passed_on(found, purpose, capsys):
    assert main(["doctor", "--for", purpose, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert found[1] == [purpose]
    assert (document["purpose"], document["ok"]) == (purpose, True)
    assert [Finding.model_validate(finding) for finding in document["findings"]] == found[0]
    assert document["summary"]["cannot"]
    assert document["summary"]["rest"]


def test_a_purpose_that_is_not_there(capsys):
    assert main(["doctor", "--for", "x"]) == 2
    err = capsys.readouterr().err
    assert "'x' is not one of 'train'" in err
    assert "Value error" not in err


def test_an_error_ends_with_4_and_keeps_the_document(found, capsys):
    found[0].append(
        Finding(code="DSKD-E111", level="error", what="torch is not installed", cure="pip install torch")
    )
    assert main(["doctor", "--for", "train", "--json"]) == 4
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1])["ok"] is False
    assert "error: This machine is not ready: DSKD-E111 torch is not installed." in err
    assert "hint: pip install torch" in err
