from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_support import SMALL_STAGES, Finished

from dskd_compress.cli import main
from dskd_export.documents import ValidationDocument, read_document

pytestmark = pytest.mark.usefixtures("no_document_yet")


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, object], str]:
    code = main(["run", *arguments, "--json"])
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    return code, json.loads(out), err


def test_nothing_left_to_do(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    code, document, err = run(str(finished.folder.path), capsys=capsys)
    assert code == 0
    ship = document.pop("ship")
    assert (ship["name"], ship["verdict"]) == ("onnxruntime:cpu:fp32", "PASS")  # type: ignore[index]
    assert document == {
        "run": str(finished.folder.path),
        "stages": [{"stage": stage, "ran": False, "why": "unchanged"} for stage in SMALL_STAGES],
        "verdict": "PASS",
        "passed": True,
        "report": str(finished.folder / "report.html"),
    }
    assert "distill: unchanged, skipped" in err
    assert "PASS" in err


def test_a_gate_that_fails(finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished.copy(tmp_path / "run")
    old = (folder / "report.html").read_bytes()
    impossible = ["--set", "validate.max_abs_relative=1e-30"]
    code, document, err = run(str(folder.path), *impossible, capsys=capsys)
    assert code == 5
    assert document["passed"] is False
    assert [stage["stage"] for stage in document["stages"] if stage["ran"]] == ["validate", "report"]  # type: ignore[attr-defined]
    assert not read_document(folder / "validation.json", ValidationDocument).passed
    assert (folder / "report.html").read_bytes() != old
    assert "error: The exported student does not pass: onnxruntime:cpu:fp32: max abs / scale" in " ".join(
        err.split()
    )
    # It fails as well when nothing has to be run again, and not when nobody asked for it.
    code, document, _ = run(str(folder.path), capsys=capsys)
    assert (code, document["verdict"], document["passed"], document["ship"]) == (5, "FAIL", False, None)
    code, document, _ = run(str(folder.path), "--to", "export", capsys=capsys)
    assert (code, document["passed"]) == (0, None)


def test_as_text(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(finished.folder.path)]) == 0
    out = capsys.readouterr().out
    assert f"Report: {finished.folder / 'report.html'}" in out
    assert "Verdicts, against torch:cpu:fp32" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "exprt"], "--from: there is no stage 'exprt'."),
        (["--from", "report", "--to", "train"], "--from report comes after --to train."),
        (["--set", "train.epochz=1"], "epochz"),
    ],
)
def test_usage(arguments: list[str], message: str, finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    code, document, _ = run(str(finished.folder.path), *arguments, capsys=capsys)
    assert code == 2
    assert message in document["error"]["message"]  # type: ignore[index]


def test_device_and_precision_are_those_of_both_trainings(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(
        "dskd_compress.stages.pipeline.run_pipeline", lambda recipe, *_, **__: seen.append(recipe) or []
    )
    folder = str(finished.folder.path)
    main(["run", folder, "--device", "cpu", "--precision", "bf16", "--seed", "8", "--data", "x"])
    main(["run", folder, "--precision", "bf16", "--set", "teacher.train.precision=fp32"])
    main(["run", folder, "--precision", "bf16", "--set", "teacher.train=null"])
    first, second, third = seen
    assert (first.train.device, first.train.precision, first.seed, first.data.source) == ("cpu", "bf16", 8, "x")
    assert (first.teacher.train.device, first.teacher.train.precision) == ("cpu", "bf16")
    assert (second.train.precision, second.teacher.train.precision) == ("bf16", "fp32")
    assert (third.train.precision, third.teacher.train) == ("bf16", None)
