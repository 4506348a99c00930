"""Dockerfiles: linted, and checked against the files next to them and the commands that they run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from deployment_support import odd_bundle, plain_bundle, run, tool
from packaging.requirements import Requirement
from typer.main import get_command

from dskd_compress.cli import app
from dskd_export import __version__
from dskd_export.bundle import open_bundle
from dskd_export.deployment import DEVICES, make_plan, write_deployment
from dskd_export.deployment.docker import BASES

# https://docs.docker.com/reference/dockerfile/
INSTRUCTIONS = {"ARG", "FROM", "RUN", "COPY", "ENV", "WORKDIR", "ENTRYPOINT", "CMD"}
# nvcr.io/nvidia/NAME:TAG, by NVIDIA's naming: r36.4.0 of a Jetson, 26.05-py3 of a month.
IMAGE = re.compile(r"nvcr\.io/nvidia/[a-z0-9-]+:(r\d+\.\d+\.\d+|\d\d\.\d\d-py3)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("docker")
    bundle = plain_bundle(root / "bundle")
    write_deployment(root / "out", make_plan(bundle, precision="fp16"), ["docker"])
    return root / "out/docker"


def instructions(path: Path) -> list[tuple[str, str]]:
    """Instruction and its arguments, of lines that were joined."""
    joined = re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8"))
    lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
    found = [line.partition(" ") for line in lines]
    return [(name, rest) for name, _, rest in found]


@pytest.mark.parametrize("device", DEVICES)
def test_hadolint_has_nothing_to_say(folder: Path, device: str) -> None:
    done = run([tool("hadolint"), f"Dockerfile.{device}"], folder)
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_would_say_something(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM ubuntu:latest\nRUN pip install numpy\n", encoding="utf-8")
    done = run([tool("hadolint"), "Dockerfile"], tmp_path)
    assert done.returncode != 0
    assert "DL3007" in done.stdout


def test_of_any_name_too(tmp_path: Path) -> None:
    write_deployment(tmp_path / "out", make_plan(odd_bundle(tmp_path / "bundle")), ["docker"])
    for device in DEVICES:
        path = tmp_path / f"out/docker/Dockerfile.{device}"
        assert {name for name, _ in instructions(path)} == INSTRUCTIONS
        assert run([tool("hadolint"), str(path)], tmp_path).returncode == 0


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_copied_is_there(folder: Path, device: str) -> None:
    found = instructions(folder / f"Dockerfile.{device}")
    assert {name for name, _ in found} == INSTRUCTIONS
    copied = [rest.split()[0] for name, rest in found if name == "COPY"]
    assert copied == ["wheels", "bundle"]
    assert all(any((folder / name).iterdir()) for name in copied)
    assert open_bundle(folder / "bundle").precisions == ("fp16", "fp32", "int8")


@pytest.mark.parametrize("device", DEVICES)
def test_images_and_packages_are_pinned(folder: Path, device: str) -> None:
    found = instructions(folder / f"Dockerfile.{device}")
    arguments = dict(rest.split("=", 1) for name, rest in found if name == "ARG")
    assert found[0] == ("ARG", f"BASE_IMAGE={BASES[device][0].image}")
    assert found[1] == ("FROM", "${BASE_IMAGE}")
    assert arguments["DSKD_COMPRESS"] == f'"dskd-compress=={__version__}"'
    assert len({base.image for base in BASES[device]}) == len(BASES[device])
    for base in BASES[device]:
        assert IMAGE.fullmatch(base.image), base.image
        assert [spec.operator for spec in Requirement(base.onnxruntime).specifier] == ["=="]
        assert {spec.operator for spec in Requirement(base.cuda_bindings).specifier} == {">=", "<"}


def test_a_jetson_has_its_own_image_up_to_jetpack_6() -> None:
    jetson = [base.image for base in BASES["jetson"]]
    assert jetson[0].startswith("nvcr.io/nvidia/l4t-jetpack:r36.")
    assert all(image.startswith("nvcr.io/nvidia/tensorrt:") for image in jetson[1:])


@pytest.mark.parametrize("device", DEVICES)
def test_the_commands_exist(folder: Path, device: str) -> None:
    found = dict(instructions(folder / f"Dockerfile.{device}")[-2:])
    assert json.loads(found["ENTRYPOINT"]) == ["dskd-compress"]
    name, *arguments = json.loads(found["CMD"])
    assert (name, arguments[0]) == ("validate", "bundle")
    context = get_command(app).commands[name].make_context(name, list(arguments))  # type: ignore[attr-defined]
    assert context.params["precision"] in ("fp16", ["fp16"], ("fp16",))
    runs = [rest for step, rest in instructions(folder / f"Dockerfile.{device}") if step == "RUN"]
    program, group, command, bundle = json.loads(runs[-1])
    assert (program, bundle) == ("dskd-compress", "bundle")
    assert command in get_command(app).commands[group].commands  # type: ignore[attr-defined]


def test_one_device_alone(tmp_path: Path) -> None:
    plan = make_plan(plain_bundle(tmp_path / "bundle"), devices=("jetson",))
    write_deployment(tmp_path / "out", plan, ["docker"])
    assert not (tmp_path / "out/docker/Dockerfile.server").exists()
    readme = (tmp_path / "out/README.md").read_text()
    assert "Dockerfile.jetson" in readme
    assert "Dockerfile.server" not in readme
    assert "Server" not in readme


def test_the_shell_of_the_image_understands_it(folder: Path) -> None:
    for device in DEVICES:
        for step, rest in instructions(folder / f"Dockerfile.{device}"):
            if step == "RUN" and not rest.startswith("["):
                done = run(["sh", "-n", "-c", rest], folder)
                assert (done.returncode, done.stderr) == (0, "")
                assert shlex.split(rest)
