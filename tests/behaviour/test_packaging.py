"""The wheel and the source archive: what is in them, and that the installed wheel works outside the checkout."""

from __future__ import annotations

import ast
import email
import email.message
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from readme_blocks import ROOT

from dskd_export import __version__

EXTRAS = {
    *(
        "train",
        "onnx",
        "quant",
        "tensorrt",
        "tensorrt-rtx",
        "nvml",
        "hub",
        "zstd",
        "tensorboard",
        "wandb",
        "hub",
        "mlflow",
        "all",
    ),
}
BASE = {"numpy", "pydantic", "pyyaml", "typer", "rich", "pillow", "jinja2"}
PACKAGES = {"dskd_compress": ROOT / "dskd_compress", "dskd_export": ROOT / "export/dskd_export"}
OLDEST = (3, 10)


def python(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """This interpreter in a process of its own."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **environment},
    )


@dataclass(frozen=True)
class Built:
    wheel: Path
    sdist: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The source archive of this checkout, and the wheel that is built from that archive."""
    folder = tmp_path_factory.mktemp("dist")
    done = python("-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT), cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Built(wheel, sdist)


@pytest.fixture(scope="module")
def names(built: Built) -> set[str]:
    """Every file in the wheel."""
    with zipfile.ZipFile(built.wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(built: Built) -> email.message.Message:
    with zipfile.ZipFile(built.wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_string(archive.read(name).decode())


def in_the_checkout(folder: Path, prefix: str) -> set[str]:
    return {
        f"{prefix}/{path.relative_to(folder).as_posix()}"
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_both_packages_and_nothing_beside_them(names: set[str]) -> None:
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == set(PACKAGES)
    for package, folder in PACKAGES.items():
        assert in_the_checkout(folder, package) <= names
        assert f"{package}/py.typed" in names
    assert not [
        name
        for name in names
        if name.split("/")[-1].startswith(("test_", "conftest")) or name.endswith((".pyc", ".png"))
    ]


def test_the_recipes_are_package_data(names: set[str]) -> None:
    recipes = {name for name in names if name.startswith("dskd_compress/recipes/")}
    assert recipes == in_the_checkout(ROOT / "recipes", "dskd_compress/recipes")
    assert len([name for name in recipes if name.endswith(".yaml")]) >= 3


def test_the_report_brings_its_templates_and_its_javascript_with_licences(names: set[str]) -> None:
    report = "dskd_export/report"
    for name in ("report.html.j2", "report.md.j2", "report.css", "report.js"):
        assert f"{report}/templates/{name}" in names
    scripts = [name for name in names if name.startswith(f"{report}/vendor/") and name.endswith(".min.js")]
    assert len(scripts) == 3
    for script in scripts:
        library = Path(script).name.removesuffix(".min.js")
        assert f"{report}/vendor/LICENSE-{library}" in names
    licences = [name for name in names if ".dist-info/licenses/" in name]
    assert {Path(name).name for name in licences} == {
        "LICENSE",
        "LICENSE-bundled",
        "LICENSE-vega",
        "LICENSE-vega-embed",
        "LICENSE-vega-lite",
    }


def test_the_deployment_brings_its_templates(names: set[str]) -> None:
    templates = "dskd_export/deployment/templates"
    for name in (
        *("README.md.j2", "triton/config.pbtxt.j2", "docker/Dockerfile.j2"),
        *("cpp/model_spec.h.j2", "cpp/CMakeLists.txt", "cpp/src/main.cpp"),
    ):
        assert f"{templates}/{name}" in names


def test_the_metadata_says_what_it_needs(built: Built, metadata: email.message.Message, names: set[str]) -> None:
    assert metadata["Name"] == "dskd-compress"
    assert metadata["Version"] == __version__
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra") or []) == EXTRAS
    requirements = metadata.get_all("Requires-Dist") or []
    base = {line.partition(">")[0].strip() for line in requirements if "extra ==" not in line}
    assert base == BASE
    assert not {"torch", "timm", "onnx", "onnxruntime"} & base
    assert any(line.startswith("timm>=1.0.31") and "extra == 'train'" in line for line in requirements)
    assert str(metadata.get_payload()).startswith("# dskd-compress\n")
    (entry,) = (name for name in names if name.endswith("entry_points.txt"))
    with zipfile.ZipFile(built.wheel) as archive:
        assert "dskd-compress = dskd_compress.__main__:start" in archive.read(entry).decode().splitlines()


def test_the_source_archive_can_be_built_and_tested_from(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        "pyproject.toml",
        "constraints.txt",
        "Makefile",
        ".ci/run",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
    ):
        assert name in names
    assert {
        "docs/report.png",
        "export/README.md",
        "tests/behaviour/test_packaging.py",
        "recipes/README.md",
    } <= names
    assert not [name for name in names if name.startswith((".venv", "runs/", "dist/")) or "__pycache__" in name]


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder outside the checkout into which the wheel was installed."""
    target = tmp_path_factory.mktemp("installed") / "site"
    done = python(
        *("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"),
        *("--target", str(target), str(built.wheel)),
        cwd=target.parent,
    )
    assert done.returncode == 0, done.stderr
    return target


def test_the_installed_wheel_works_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        done = python(*arguments, cwd=tmp_path, PYTHONPATH=str(installed), COLUMNS="200")
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run(
        "-c", "import dskd_compress, dskd_export; print(dskd_compress.__file__); print(dskd_export.__file__)"
    )
    assert all(Path(line).is_relative_to(installed) for line in where.splitlines())
    assert run("-m", "dskd_compress", "--version") == f"dskd-compress {__version__}\n"
    assert "The pipeline, in order" in run("-m", "dskd_compress", "--help")
    listed = run("-m", "dskd_compress", "recipes", "list")
    assert "digits/resnet18-to-mobilenetv3_small_050" in listed
    checked = run("-m", "dskd_compress", "recipes", "check", "digits/resnet18-to-mobilenetv3_small_050")
    assert "is a valid recipe" in checked
    script = installed / "bin/dskd-compress"
    assert run(str(script), "--version") == f"dskd-compress {__version__}\n"
    assert list(tmp_path.iterdir()) == []


SOURCES = [(name, path) for name, folder in PACKAGES.items() for path in sorted(folder.rglob("*.py"))]


def test_the_sources_are_python_3_10() -> None:
    assert len(SOURCES) > 80
    for name, path in SOURCES:
        ast.parse(path.read_text(encoding="utf-8"), f"{name}/{path.name}", feature_version=OLDEST)


def oldest_python() -> str | None:
    """An interpreter of the oldest version that is supported, on the PATH or among pyenv's."""
    version = ".".join(map(str, OLDEST))
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = sorted(pyenv.glob(f"{version}.*/bin/python")) if pyenv.is_dir() else []
    return str(found[-1]) if found else shutil.which(f"python{version}")


def test_python_3_10_compiles_them(tmp_path: Path) -> None:
    interpreter = oldest_python()
    if interpreter is None:
        pytest.skip("no Python 3.10 here")
    done = subprocess.run(
        [interpreter, "-m", "compileall", "-q", "-f", *map(str, PACKAGES.values())],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path / "cache")},
    )
    if "version `" in done.stderr and "not set" in done.stderr:  # a pyenv shim without a version behind it
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
