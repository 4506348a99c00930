"""Two bundles in turns, by the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from engine_support import make_bundle, make_classifier

from dskd_compress import console
from dskd_compress.cli import main
from dskd_export.documents.base import read_document
from dskd_export.documents.benchmark import AbDocument

QUICK = ["--set", "benchmark.min_seconds=0.1", "--batch", "1", "--threads", "1", "--provider", "cpu"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "_document_written", False)
    classifier = make_classifier()
    make_bundle(tmp_path / "one", classifier, fp16=classifier)
    make_bundle(tmp_path / "other", make_classifier(seed=9))


def test_what_both_have_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "one", "--against", "other", "--out", "out", *QUICK]) == 0
    document = read_document(Path("out/ab.json"), AbDocument)
    (only,) = document.comparisons
    assert (only.first, only.second, only.batch) == ("onnxruntime:cpu:fp32", "onnxruntime:cpu:fp32", 1)
    assert document.first_sha256 != document.second_sha256
    assert only.pairs >= 20
    assert 0.2 < only.ratio.low <= only.ratio.value <= only.ratio.high < 5
    out = capsys.readouterr().out
    assert "other beside one" in out
    assert only.verdict in out


def test_a_document_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "one", "--against", "one", "--out", "out", "--json", *QUICK]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["comparisons"]) == 2
    assert {one["verdict"] for one in document["comparisons"]} <= {"faster", "slower", "not distinguishable"}


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--precision", "fp16"], 2, "no model of precision fp16"),
        (["--device", "local"], 2, "--against times two bundles here"),
        (["--baseline", "old.json"], 2, "--against times two bundles here"),
    ],
)
def test_what_cannot_be_compared(
    flags: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", "one", "--against", "other", "--out", "out", *QUICK, *flags]) == code
    assert said in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_bundle_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree("other")
    assert main(["benchmark", "one", "--against", "other", *QUICK]) == 3
    assert "other" in capsys.readouterr().err
