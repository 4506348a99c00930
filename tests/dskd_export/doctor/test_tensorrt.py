"""TensorRT as the doctor sees it: where it is found, and which versions are used."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import pytest

from dskd_export import codes
from dskd_export.doctor import tensorrt
from dskd_export.doctor.tensorrt import check_tensorrt
from dskd_export.engine.generations import find_installed
from dskd_export.engine.versions import SUPPORTED, range_of, system_folders, versions_of

HERE = f"python3.{sys.version_info.minor}"


def plant(root: Path, python: str, text: str) -> Path:
    folder = root / "usr/lib" / python / "dist-packages/tensorrt"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(text)
    return folder


def test_a_system_tensorrt_of_this_python_is_taken_as_build_takes_it(tmp_path: Path) -> None:
    folder = plant(tmp_path, HERE, "__version__ = '10.3.0'\n")
    (finding,) = [one for one in check_tensorrt(True, (), tmp_path) if "tensorrt_rtx" not in one.what]
    assert (finding.level, finding.what) == ("ok", f"tensorrt 10.3.0 in {folder}")
    (found,) = [one for one in find_installed(system_folders(tmp_path)) if one.name == "tensorrt"]
    assert (found.folder, found.on_path) == (folder, False)


def test_a_system_tensorrt_of_another_python_is_out_of_reach(tmp_path: Path) -> None:
    plant(tmp_path, "python3.8", "__version__ = '10.3.0'\n")
    findings = list(check_tensorrt(True, (), tmp_path))
    assert findings[-1].code == str(codes.TENSORRT_OFF_PATH)
    assert "python3.8 -m venv --system-site-packages" in (findings[-1].cure or "")
    assert not [one for one in find_installed(system_folders(tmp_path)) if one.name == "tensorrt"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("__version__ = '8.6.1'\n", codes.TENSORRT_MAJOR),
        ("raise ImportError('libnvinfer.so.10: cannot open shared object file')\n", codes.LIBNVINFER),
    ],
)
def test_what_is_wrong_with_the_systems(tmp_path: Path, text: str, code: codes.Code) -> None:
    plant(tmp_path, "python3", text)
    (finding,) = [one for one in check_tensorrt(True, (), tmp_path) if "tensorrt_rtx" not in one.what]
    assert (finding.level, finding.code) == ("error", str(code))


def test_every_version_has_at_most_one_adapter() -> None:
    for module in {one.module for one in SUPPORTED}:
        served = sorted((one.since, one.before) for one in SUPPORTED if one.module == module)
        assert all(before <= since for (_, before), (since, _) in pairwise(served))
    assert range_of("tensorrt") == ("10.3", "12.0")
    assert versions_of("tensorrt", (10, 2, 9)) is None
    assert versions_of("tensorrt", (11, 4)) is SUPPORTED[1]
    assert tensorrt.SUPPORTED is SUPPORTED
