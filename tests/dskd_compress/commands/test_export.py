from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_support import Finished

from dskd_compress.cli import main
from dskd_export.bundle import open_bundle

pytestmark = pytest.mark.usefixtures("no_document_yet")


def test_it_prints_the_manifest(finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished.copy(tmp_path / "run")
    changes = ["--set", "export.teacher=false", "--set", "export.opset=18"]
    assert main(["export", str(folder.path), *changes, "--json"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert json.loads(out) == json.loads((folder.bundle / "manifest.json").read_text())
    assert open_bundle(folder.bundle).spec.opset == 18
    assert f"Bundle: {folder.bundle}\nNext: dskd-compress validate {folder.path}" in err


def test_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path)]) == 3
    assert "is not a run folder" in capsys.readouterr().err


def test_there_is_no_student(finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished.copy(tmp_path / "run")
    (folder / "student.safetensors").unlink()
    assert main(["export", str(folder.path)]) == 3
    assert "student.safetensors is missing" in capsys.readouterr().err


def test_the_legacy_exporter_is_recorded(finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    flags = ["--exporter", "legacy", "--set", "export.teacher=false"]
    assert main(["export", str(folder.path), *flags]) == 0
    assert open_bundle(folder.bundle).manifest.models["fp32"].details["exporter"] == "torch.onnx legacy"


def test_an_exporter_that_torch_does_not_have(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(finished.copy(tmp_path / "run").path), "--exporter", "tracing"]) == 2
    assert "export.exporter" in capsys.readouterr().err
