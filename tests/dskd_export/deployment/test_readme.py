"""The README of a deployment names what was generated, and its commands are commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from deployment_support import odd_bundle, plain_bundle, run
from readme_blocks import blocks
from typer.main import get_command

from dskd_compress.cli import app
from dskd_export.bundle import Bundle, open_bundle
from dskd_export.deployment import TARGETS, make_plan, write_deployment

CHOICES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "all": (TARGETS, {}),
    "fp16 in ONNX Runtime's TensorRT": (TARGETS, {"precision": "fp16", "provider": "tensorrt"}),
    "on the CPU": (("triton",), {"provider": "cpu", "max_batch": 1}),
    "an engine": (("triton", "cpp"), {"precision": "int8", "engine": "model.engine"}),
    "the program": (("cpp",), {"precision": "int8"}),
    "images": (("docker",), {"devices": ("jetson",), "model_name": "A__b-_c"}),
}


@pytest.fixture(scope="module", params=["plain", "odd"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp(request.param) / "bundle"
    return plain_bundle(folder) if request.param == "plain" else odd_bundle(folder)


def written(bundle: Bundle, choice: str, tmp_path: Path) -> Path:
    targets, options = CHOICES[choice]
    options = dict(options)
    if options.get("precision") not in bundle.precisions:
        options["precision"] = "fp32"  # all that the odd bundle has
    if "engine" in options:
        options["engine"] = tmp_path / options["engine"]
        options["engine"].write_bytes(b"engine")
    write_deployment(tmp_path / "out", make_plan(bundle, **options), targets)
    return tmp_path / "out"


def command_lines(folder: Path) -> list[list[str]]:
    text = "".join(block.text for block in blocks(folder / "README.md", "sh"))
    done = run(["bash", "-n", "-c", text], folder)
    assert (done.returncode, done.stderr) == (0, "")
    return [shlex.split(line) for line in re.sub(r"\\\n\s*", "", text).splitlines()]


@pytest.mark.parametrize("choice", CHOICES)
def test_every_file_of_a_command_is_there(bundle: Bundle, choice: str, tmp_path: Path) -> None:
    folder = written(bundle, choice, tmp_path)
    targets, _ = CHOICES[choice]
    seen = set()
    for words in command_lines(folder):
        seen.add(words[0])
        if words[0] == "dskd-compress":
            get_command(app).commands[words[1]].make_context(words[1], words[2:])  # type: ignore[attr-defined]
            place = folder / words[2].replace("BUNDLE", str(bundle.folder))
            assert open_bundle(place).sha256 == bundle.sha256
        if words[0] == "trtexec":
            onnx = words[1].removeprefix("--onnx=")
            model = bundle.folder / onnx.removeprefix("BUNDLE/") if onnx.startswith("BUNDLE/") else folder / onnx
            assert model.is_file(), onnx
            assert not {"--fp16", "--int8", "--bf16", "--best"} & set(words)
        if words[:2] == ["docker", "build"]:
            assert (folder / words[words.index("-f") + 1]).is_file()
            assert (folder / words[-1]).is_dir()
            # https://docs.docker.com/reference/cli/docker/image/tag/
            assert re.fullmatch(r"[a-z0-9]+([._-][a-z0-9]+)*", words[words.index("-t") + 1])
        if words[0] == "cmake":
            assert words[words.index("-S") + 1 if "-S" in words else 2] in ("cpp", "cpp/build")
    expected = {"triton": {"docker", "curl"}, "cpp": {"cmake", "cpp/build/dskd_runner"}, "docker": {"docker"}}
    engine = {"trtexec", "dskd-compress"} if {"triton", "cpp"} & set(targets) else set()
    assert seen == engine.union(*(expected[target] for target in targets))


@pytest.mark.parametrize("choice", CHOICES)
def test_it_speaks_of_what_is_there_alone(bundle: Bundle, choice: str, tmp_path: Path) -> None:
    folder = written(bundle, choice, tmp_path)
    text = (folder / "README.md").read_text(encoding="utf-8")
    for target, title in (("triton", "Triton Inference Server"), ("cpp", "C++"), ("docker", "Docker")):
        assert (f"\n## {title}\n" in text) == (target in CHOICES[choice][0])
        assert (folder / target).is_dir() == (target in CHOICES[choice][0])
    assert "\n## Limitations\n" in text
    assert bundle.sha256 in text
    assert "\n\n\n" not in text
    assert max(map(len, text.splitlines())) < 320


@pytest.mark.parametrize("choice", CHOICES)
def test_our_own_commands_exist(bundle: Bundle, choice: str, tmp_path: Path) -> None:
    text = (written(bundle, choice, tmp_path) / "README.md").read_text(encoding="utf-8")
    for line in re.findall(r"`dskd-compress ([^`]+ [^`]+)`", text):
        name, *arguments = shlex.split(line)
        get_command(app).commands[name].make_context(name, arguments)  # type: ignore[attr-defined]


def test_batches_and_names(bundle: Bundle, tmp_path: Path) -> None:
    plan = make_plan(bundle, max_batch=5)
    write_deployment(tmp_path / "out", plan, ["triton"])
    (words,) = (words for words in command_lines(tmp_path / "out") if words[0] == "trtexec")
    name, sides = bundle.spec.input_name, "x".join(map(str, bundle.spec.input_shape(1)[1:]))
    assert f"--maxShapes={name}:5x{sides}" in words
    assert f"--minShapes={name}:1x{sides}" in words
