from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from blocked_imports import block_imports
from bundle_support import bundle_arguments, contents, make_provenance

from dskd_compress.cli import main
from dskd_export.bundle import open_bundle, pack_bundle, write_bundle
from dskd_export.files.atomic import sha256_file

pytestmark = pytest.mark.usefixtures("no_document_yet")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "bundle"
    write_bundle(path, **bundle_arguments())
    return path


@pytest.fixture
def packed(folder: Path, tmp_path: Path) -> Path:
    return pack_bundle(folder, tmp_path / "b.tar.gz")


@pytest.mark.parametrize("which", ["folder", "run", "packed"])
def test_verify(which: str, folder: Path, packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = {"folder": folder, "run": folder.parent, "packed": packed}[which]
    place = packed if which == "packed" else folder
    assert main(["bundle", "verify", str(path)]) == 0
    out, err = capsys.readouterr()
    sha256 = open_bundle(folder).sha256
    assert out == f"{place} is valid: fp16, fp32, int8; 9 files, 0.0 MB, {sha256}\n"
    assert err == ""
    assert main(["bundle", "verify", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {
        "path": str(place),
        "valid": True,
        "packed": which == "packed",
        "sha256": sha256,
        "precisions": ["fp16", "fp32", "int8"],
        "files": 9,
        "size_mb": pytest.approx(sum(facts.size for facts in open_bundle(folder).manifest.files.values()) / 1e6),
    }


@pytest.mark.parametrize("command", ["verify", "show", "pack"])
def test_a_damaged_bundle(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (folder / "model.fp32.onnx").open("ab") as file:
        file.write(b"x")
    assert main(["bundle", command, str(folder), "--json"]) == 3
    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert error["kind"] == "BundleError"
    assert f"{folder}/model.fp32.onnx is not the file that was exported" in error["message"]
    assert err.splitlines() == [f"error: {error['message']}", f"hint: {error['hint']}"]


@pytest.mark.parametrize("command", ["verify", "show", "unpack"])
def test_a_damaged_packed_bundle(command: str, packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed.write_bytes(packed.read_bytes()[:-1])
    assert main(["bundle", command, str(packed)]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {packed} was altered or cut off")
    assert len(err.splitlines()) == 2


@pytest.mark.parametrize("command", ["verify", "show", "pack", "unpack"])
def test_nothing_there(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", command, str(tmp_path / "none.tar.gz")]) == 3
    assert "error: " in capsys.readouterr().err


def test_show(folder: Path, packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "show", str(folder)]) == 0
    text = capsys.readouterr().out
    flat = " ".join(text.split())
    for shown in (
        *("a converter 1.0", "a quantiser 2.0", "3 images, entropy", "7 classes, opset 20", "bicubic, crop 0.9"),
        *("resnet34 (pretrained)", "Apache-2.0 (the recipe)", "unknown (random weights)", "cc-by-nc-4.0 (timm)"),
        *("model.fp16.onnx.data", sha256_file(folder / "golden.npz"), open_bundle(folder).sha256),
    ):
        assert shown in flat, shown
    assert main(["bundle", "show", str(packed), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["manifest"] == json.loads((folder / "manifest.json").read_bytes())
    assert document["spec"] == json.loads((folder / "spec.json").read_bytes())
    assert document["calibration"] == json.loads((folder / "calibration.json").read_bytes())
    assert document["sha256"] == sha256_file(folder / "manifest.json")


def test_a_strangers_text_stays_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    provenance = make_provenance(recipe="[red]\x1b[2J\x07\nmine", versions={"[b": "\x1b]0;title"})
    write_bundle(folder, **bundle_arguments() | {"provenance": provenance})
    assert main(["bundle", "show", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "[red]\\x1b[2J\\x07\\nmine" in text


def test_pack_and_unpack(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "r18.tar.gz"
    assert main(["bundle", "pack", str(folder.parent), "--out", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {"path": str(out), "size_mb": out.stat().st_size / 1e6, "sha256": sha256_file(out)}
    assert main(["bundle", "unpack", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["path"] == str(tmp_path / "r18")
    assert contents(tmp_path / "r18") == contents(folder)
    assert main(["bundle", "unpack", str(out), "--out", str(tmp_path / "there")]) == 0
    assert capsys.readouterr().out == f"Bundle: {tmp_path / 'there'}\n"
    assert contents(tmp_path / "there") == contents(folder)


def test_pack_beside_the_bundle(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "pack", str(folder)]) == 0
    said = capsys.readouterr().out
    (made,) = (path for path in folder.parent.iterdir() if path != folder)
    assert made.name in ("bundle.tar.zst", "bundle.tar.gz")
    assert said.startswith(f"Packed: {made}, 0.0 MB, {sha256_file(made)}")


def test_a_missing_zstandard(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert main(["bundle", "pack", str(folder), "--out", str(tmp_path / "b.tar.zst")]) == 4
    assert "pip install 'dskd-compress[zstd]'" in capsys.readouterr().err


NOT_THERE = ("torch", "timm", "torchvision", "onnx", "onnxruntime", "zstandard", "scipy")


def test_it_runs_where_nothing_is_installed_but_the_base(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "device/bundle")
    environment = block_imports(tmp_path / "blocker", *NOT_THERE)
    for arguments in (
        ["verify", "bundle"],
        ["show", "bundle"],
        ["pack", "bundle", "--out", "b.tar.gz"],
        ["verify", "b.tar.gz"],
        ["unpack", "b.tar.gz"],
        ["verify", "b"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "dskd_compress", "bundle", *arguments],
            cwd=tmp_path / "device",
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "device/b") == contents(folder)
