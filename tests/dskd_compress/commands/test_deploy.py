from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from blocked_imports import block_imports
from deployment_support import plain_bundle

from dskd_compress.cli import main
from dskd_export.bundle import open_bundle, pack_bundle

pytestmark = pytest.mark.usefixtures("no_document_yet")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "bundle"
    plain_bundle(path)
    return path


@pytest.mark.parametrize("of_the_run", [True, False])
def test_all_of_it(folder: Path, tmp_path: Path, of_the_run: bool, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["deploy", str(folder.parent if of_the_run else folder), "--out", str(out)]) == 0
    said, err = capsys.readouterr()
    count = sum(path.is_file() for path in out.rglob("*")) - 1
    assert said == f"Deployment: {out}, resnet18_fp32, {count} files\nNext: read {out / 'README.md'}\n"
    assert err == ""
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "cpp",
        "deployment.json",
        "docker",
        "triton",
    ]
    assert sorted(path.name for path in (out / "docker").glob("Docker*")) == [
        "Dockerfile.jetson",
        "Dockerfile.server",
    ]


def test_every_option(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    engine = tmp_path / "model.engine"
    engine.write_bytes(b"engine")
    options = ["--artifact", "triton", "--precision", "int8", "--provider", "tensorrt", "--engine", str(engine)]
    options += ["--max-batch", "4", "--model-name", "bolts", "--json"]
    assert main(["deploy", str(folder), "-o", str(out), *options]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document.pop("path") == str(out)
    assert document == json.loads((out / "deployment.json").read_bytes())
    assert (document["precision"], document["name"], document["targets"]) == ("int8", "bolts", ["triton"])
    assert document["bundle_sha256"] == open_bundle(folder).sha256
    config = (out / "triton/bolts/config.pbtxt").read_text()
    assert "max_batch_size: 4\n" in config
    assert 'backend: "tensorrt"\n' in config


def test_a_device(folder: Path, tmp_path: Path) -> None:
    arguments = ["--artifact", "docker", "--platform", "jetson", "--out", str(tmp_path / "out")]
    assert main(["deploy", str(folder), *arguments]) == 0
    assert [path.name for path in (tmp_path / "out/docker").glob("Docker*")] == ["Dockerfile.jetson"]


def test_force(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["deploy", str(folder), "--artifact", "triton", "--out", str(out)]) == 0
    assert main(["deploy", str(folder), "--artifact", "cpp", "--out", str(out)]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert str(out) in error
    assert "--force" in hint
    assert main(["deploy", str(folder), "--artifact", "cpp", "--out", str(out), "--force"]) == 0
    assert not (out / "triton").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--precision", "bf16"], 2, "bf16"),
        (["--model-name", "../x"], 2, "'../x'"),
        (["--artifact", "kserve"], 2, "kserve"),
        (["--platform", "phone"], 2, "phone"),
        (["--provider", "rocm"], 2, "rocm"),
        (["--max-batch", "0"], 2, "--max-batch"),
        (["--engine", "nowhere"], 2, "nowhere is missing"),
    ],
)
def test_what_is_refused(
    folder: Path, tmp_path: Path, arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["deploy", str(folder), "--out", str(tmp_path / "out"), *arguments]) == code
    err = capsys.readouterr().err
    assert message in err.splitlines()[0]
    assert err.splitlines()[1].startswith("hint: ")
    assert not (tmp_path / "out").exists()


def test_a_damaged_a_packed_and_a_missing_bundle(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = pack_bundle(folder, tmp_path / "b.tar.gz")
    assert main(["deploy", str(packed), "--out", str(tmp_path / "out")]) == 2
    assert f"Unpack it first: dskd-compress bundle unpack {packed}" in capsys.readouterr().err
    assert main(["deploy", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 3
    assert "no such bundle" in capsys.readouterr().err
    with (folder / "model.fp32.onnx").open("ab") as file:
        file.write(b"x")
    assert main(["deploy", str(folder), "--out", str(tmp_path / "out")]) == 3
    assert "is not the file that was exported" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


NOT_THERE = ("torch", "timm", "torchvision", "onnx", "onnxruntime", "google", "scipy")


def test_it_runs_where_nothing_is_installed_but_the_base(folder: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dskd_compress", "deploy", str(folder), "--out", "out"],
        cwd=tmp_path,
        env=block_imports(tmp_path / "blocker", *NOT_THERE),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/deployment.json").is_file()
