"""Which TensorRT is here: planted modules of every kind."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

from dskd_export import codes
from dskd_export.engine import generations
from dskd_export.engine.generations import backend_of, builder_for, choose, find_installed, load, open_backend
from dskd_export.errors import EnvironmentProblem, UsageError


def plant(folder: Path, module: str, code: str, version: str | None = None) -> Path:
    """A package in a folder, with metadata where it has a version."""
    (folder / module).mkdir(parents=True)
    (folder / module / "__init__.py").write_text(code, encoding="utf-8")
    if version is not None:
        metadata = folder / f"{module}-{version}.dist-info"
        metadata.mkdir()
        text = f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: {version}\n"
        (metadata / "METADATA").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch):
    """Python finds no TensorRT by itself, and forgets what a test loads."""
    find = generations.importlib.util.find_spec
    monkeypatch.setattr(
        generations.importlib.util, "find_spec", lambda name: None if name.startswith("tensorrt") else find(name)
    )
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    for name in ("tensorrt", "tensorrt_rtx"):
        sys.modules.pop(name, None)


def module(version: str, name: str = "tensorrt") -> types.ModuleType:
    made = types.ModuleType(name)
    made.__version__ = version
    return made


@pytest.mark.parametrize(
    ("name", "version", "adapter"),
    [
        ("tensorrt", "10.3.0", "TensorRt10"),
        ("tensorrt", "10.16.1.11", "TensorRt10"),
        ("tensorrt", "11.0.0.114", "TensorRt11"),
        ("tensorrt", "11.4.0.106", "TensorRt11"),
        ("tensorrt_rtx", "1.7.1.116", "TensorRtRtx"),
    ],
)
def test_the_adapter_of_a_version(name, version, adapter):
    backend = backend_of(module(version, name))
    assert type(backend).__name__ == adapter
    assert backend.version == version


@pytest.mark.parametrize("version", ["8.6.1", "10.0.1", "10.2.0.post1", "12.0.0", "odd"])
def test_a_version_that_nobody_serves(version):
    with pytest.raises(EnvironmentProblem, match=f"tensorrt {version}") as caught:
        backend_of(module(version))
    assert caught.value.code is codes.TENSORRT_MAJOR
    assert ">=10.3,<12.0" in caught.value.hint


@pytest.mark.parametrize(
    ("version", "opset"), [("10.3.0", 20), ("10.6.0", 22), ("10.13.3.9", 22), ("10.15.1", 24), ("11.4.0.106", 24)]
)
def test_the_operator_set_of_a_parser(version, opset):
    assert backend_of(module(version)).max_opset == opset


def test_the_systems_tensorrt_is_found_and_loaded_alone(tmp_path):
    system = plant(tmp_path, "tensorrt", "__version__ = '10.3.0'\n", "10.3.0")
    plant(tmp_path, "numpy_of_the_system", "raise RuntimeError('nothing else of it is imported')\n")
    (found,) = find_installed([tmp_path / "nowhere", system])
    assert (found.name, found.version, found.on_path) == ("tensorrt", "10.3.0", False)
    assert open_backend(folders=[system]).version == "10.3.0"
    assert str(system) not in sys.path


def test_without_metadata_the_version_is_unknown(tmp_path):
    (found,) = find_installed([plant(tmp_path, "tensorrt", "__version__ = '10.3.0'\n")])
    assert found.version is None


def test_the_systems_tensorrt_of_another_python(tmp_path):
    system = plant(tmp_path, "tensorrt", "raise ImportError('tensorrt.so: undefined symbol: PyObject_X')\n")
    with pytest.raises(EnvironmentProblem, match=r"tensorrt\.so: undefined symbol") as caught:
        load(choose("tensorrt", [system]))
    assert "--system-site-packages" in caught.value.hint
    assert "tensorrt" not in sys.modules


@pytest.mark.parametrize(
    ("library", "hint"),
    [
        ("libnvinfer.so.10", "dskd-compress doctor"),
        ("libcudart.so.13", "pip install cuda-bindings"),
    ],
)
def test_a_library_that_is_missing(tmp_path, monkeypatch, library, hint):
    folder = plant(tmp_path, "tensorrt", f"raise ImportError('{library}: cannot open shared object file')\n")
    found = generations.Installed("tensorrt", "tensorrt", folder / "tensorrt", "10.3.0", on_path=True)
    monkeypatch.syspath_prepend(folder)
    with pytest.raises(EnvironmentProblem, match=re.escape(library)) as caught:
        load(found)
    assert hint in caught.value.hint


def test_nothing_is_installed(monkeypatch):
    with pytest.raises(EnvironmentProblem) as caught:
        open_backend(folders=[])
    assert caught.value.code is codes.TENSORRT
    assert "dskd-compress[tensorrt]" in caught.value.hint
    with pytest.raises(EnvironmentProblem) as caught:
        open_backend("tensorrt-rtx", folders=[])
    assert "dskd-compress[tensorrt-rtx]" in caught.value.hint
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda self: str(self) == "/etc/nv_tegra_release" or exists(self))
    with pytest.raises(EnvironmentProblem) as caught:
        open_backend(folders=[])
    assert caught.value.code is codes.TENSORRT_OFF_PATH
    assert "python3-libnvinfer" in caught.value.hint
    assert "--system-site-packages" in caught.value.hint


def test_a_backend_that_does_not_exist():
    with pytest.raises(UsageError, match="trt") as caught:
        choose("trt")
    assert "--backend" in caught.value.hint


def test_who_builds_ahead_of_time(tmp_path, monkeypatch):
    both = plant(plant(tmp_path, "tensorrt", ""), "tensorrt_rtx", "")
    monkeypatch.setattr(generations, "system_folders", lambda: (both,))
    assert builder_for("auto", ()) == "tensorrt"
    assert builder_for("auto", ("sm86",)) == "tensorrt-rtx"
    with pytest.raises(UsageError) as caught:
        builder_for("tensorrt", ("sm86",))
    assert "--compute-capability" in caught.value.hint
    with pytest.raises(UsageError, match=r"sm87\."):
        builder_for("auto", ("sm86", "sm87"))
