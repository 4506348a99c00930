from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from run_support import Finished, small_recipe

from dskd_compress import console
from dskd_compress.cli import main
from dskd_compress.run_folder import RunFolder
from dskd_compress.weights import load_trained, save_weights
from dskd_export.documents.base import read_document
from dskd_export.documents.validation import ValidationDocument

pytestmark = pytest.mark.usefixtures("no_document_yet")


def test_it_passes(finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished.copy(tmp_path / "run")
    assert main(["validate", str(folder.path), "--images", "50", "--json"]) == 0  # the old name of --max-images
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    document = ValidationDocument.model_validate_json(out)
    kept = read_document(folder / "validation.json", ValidationDocument)
    assert document == kept.without_photos() != kept  # a log of CI is no place for photos
    assert 'jpeg": "' not in out
    assert document.preprocess.images == 50
    assert "--max-images 50" in err
    (judgement,) = document.judgements
    assert document.student is not None
    shown = len(document.student.checks) + len(document.checks) + len(judgement.checks)
    assert err.count("PASS") == shown + len(["the model's row", "its reason", "the student's reason"])


def test_a_limit_is_crossed(finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished.copy(tmp_path / "run")
    assert main(["validate", str(folder.path), "--set", "validate.max_abs_relative=1e-30", "--json"]) == 5
    out, err = capsys.readouterr()
    assert out.count("\n") == 1  # the document has said everything
    assert json.loads(out)["passed"] is False
    assert "FAIL" in err
    assert "error: Not good enough to ship (exit code 5)." in err
    assert json.loads((folder / "validation.json").read_text())["passed"] is False


def test_a_bundle_of_another_student(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished.copy(tmp_path / "run")
    model, info = load_trained(folder / "student.safetensors")
    state = model.state_dict()
    state["classifier.bias"] += 1
    save_weights(folder / "student.safetensors", state, info)
    assert main(["validate", str(folder.path), "--json"]) == 3
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["kind"] == "BundleError"
    assert "exported from another student" in error["message"]
    assert error["hint"] == f"Export it again: dskd-compress export {folder.path}"


@pytest.mark.parametrize("command", ["validate", "benchmark"])
def test_other_images_than_the_runs_own(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hint names what is there, or else what makes it, in a line to paste."""
    run = RunFolder(tmp_path / "my run")
    run.write_recipe(small_recipe())

    def refused(source: Path) -> tuple[int, str, list[str]]:
        monkeypatch.setattr(console, "_document_written", False)  # one document a process
        code = main([command, str(source), "--images", "my photos", "--json"])
        error = json.loads(capsys.readouterr().out)["error"]
        return code, error["message"], shlex.split(error["hint"].partition(": ")[2])

    export = ["dskd-compress", "export", str(run.path)]
    code, message, line = refused(run / "bundle")
    assert (code, str(run / "bundle") in message, line) == (3, True, export)
    code, message, line = refused(run.path)
    assert (code, "own images" in message, line) == (2, True, export)
    (run / "bundle").mkdir()
    (run / "bundle/manifest.json").write_text("{}")
    code, _, line = refused(run.path)
    assert (code, line) == (2, ["dskd-compress", command, str(run / "bundle"), "--images", "my photos"])
    code, message, _ = refused(tmp_path / "nowhere")
    assert (code, "not a run folder" in message) == (3, True)
