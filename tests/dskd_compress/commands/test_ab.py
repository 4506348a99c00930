"""The A/B test of two bundles."""

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

QUICK = [
    *("--set", "benchmark.min_seconds=0.1", "--set", "benchmark.threads=1"),
    *("--batch", "1", "--provider", "cpu"),
]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "_document_written", False)
    classifier = make_classifier()
    make_bundle(tmp_path / "one", classifier, fp16=classifier)
    make_bundle(tmp_path / "other", make_classifier(seed=9))


def test_what_both_have_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ab", "one", "other", "--out", "out", *QUICK]) == 0
    document = read_document(Path("out/ab.json"), AbDocument)
    (only,) = document.comparisons
    assert (only.first, only.second, only.batch) == ("onnxruntime:cpu:fp32", "onnxruntime:cpu:fp32", 1)
    assert document.first_sha256 != document.second_sha256
    assert only.pairs >= 20
    assert 0.2 < only.ratio.low <= only.ratio.value <= only.ratio.high < 5
    out = capsys.readouterr().out
    assert "other against one" in out
    assert only.verdict in out


def test_a_document_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ab", "one", "one", "--out", "out", "--json", *QUICK]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["comparisons"]) == 2
    assert {one["verdict"] for one in document["comparisons"]} <= {"faster", "slower", "not distinguishable"}


def test_models_that_only_one_has_are_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ab", "one", "other", "--out", "out", *QUICK, "--precision", "fp16"]) == 2
    assert "no model of precision fp16" in capsys.readouterr().err
    assert main(["ab", "one", "other", "--out", "out", *QUICK, "--set", "train.lr=1"]) == 2
    assert not Path("out").exists()


def test_the_old_flag_names_its_replacement(capsys: pytest.CaptureFixture[str]) -> None:
    old = ["benchmark", "one", "--against", "other", "--out", "out", *QUICK]
    assert main(old) == 0
    assert "dskd-compress ab one other" in capsys.readouterr().err
    assert len(read_document(Path("out/ab.json"), AbDocument).comparisons) == 1
    shutil.rmtree("out")
    for flags in (["--on", "local"], ["--baseline", "old.json"], ["--images", "photos"]):
        assert main([*old, *flags]) == 2
    assert not Path("out").exists()


def test_a_bundle_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree("other")
    assert main(["ab", "one", "other", *QUICK]) == 3
    assert "other" in capsys.readouterr().err
