from __future__ import annotations

import importlib.util
import shlex

import pytest

from dskd_compress.cli import main
from dskd_compress.commands import build
from dskd_export.spec import ModelSpec


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "my run" / "bundle"
    folder.mkdir(parents=True)
    spec = ModelSpec(
        architecture="resnet18",
        height=48,
        width=64,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        interpolation="bilinear",
        crop_pct=1.0,
        classes=("a", "b"),
        opset=20,
        student_sha256="0" * 64,
    )
    (folder / "spec.json").write_text(spec.to_json())
    (folder / "model.fp32.onnx").write_bytes(b"onnx")
    return folder


@pytest.fixture
def tensorrt_is_there(monkeypatch):
    monkeypatch.setattr(build, "_tensorrt_is_installed", lambda: True)


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) for name in ("tensorrt", "tensorrt_rtx")), reason="TensorRT is installed"
)
def test_without_tensorrt(capsys):
    assert main(["build", "runs/x"]) == 4
    err = capsys.readouterr().err
    assert (
        err == "error: TensorRT is not installed.\nhint: Install it with: pip install 'dskd-compress[tensorrt]'\n"
    )


@pytest.mark.usefixtures("tensorrt_is_there")
@pytest.mark.parametrize("of_the_run", [True, False])
def test_with_tensorrt_it_names_trtexec(bundle, of_the_run, capsys):
    assert main(["build", str(bundle.parent if of_the_run else bundle)]) == 4
    err = capsys.readouterr().err
    assert "does not build TensorRT engines" in err
    words = shlex.split(err.split("Build one with: ")[1])
    assert words[0] == "trtexec"
    assert f"--onnx={bundle / 'model.fp32.onnx'}" in words
    assert "--minShapes=input:1x3x48x64" in words
    assert "--maxShapes=input:8x3x48x64" in words
    # Precision is in the ONNX types; newer TensorRT has no such flags.
    assert not {"--fp16", "--int8", "--bf16", "--best"} & set(words)


@pytest.mark.usefixtures("tensorrt_is_there")
def test_with_tensorrt_but_no_bundle(tmp_path, capsys):
    assert main(["build", str(tmp_path)]) == 3
    err = capsys.readouterr().err
    assert "holds no bundle" in err
    assert "dskd-compress export" in err
