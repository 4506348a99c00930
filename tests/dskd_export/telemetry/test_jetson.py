from __future__ import annotations

from pathlib import Path

import pytest
from telemetry_support import AGX_ORIN, NANO, ORIN_NANO, ORIN_NX, SERVER, THOR, Tree, plant, release

from dskd_export.telemetry import jetson

DPKG = """Package: nvidia-l4t-cuda
Status: install ok installed
Version: 36.4.3-20250107174145

Package: nvidia-l4t-core
Status: install ok installed
Priority: standard
Version: {version}
Description: NVIDIA Core Package
"""


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (ORIN_NANO, "L4T 36.4.7, JetPack 6.2.1"),
        (ORIN_NX, "L4T 36.4.4, JetPack 6.2.1"),
        (THOR, "L4T 38.4.0, JetPack 7.1"),
        (NANO, "L4T 32.7.1"),
        ({"var/lib/dpkg/status": DPKG.format(version="36.5.0-20260101000000")}, "L4T 36.5.0, JetPack 6.2.2"),
        ({"etc/nv_tegra_release": release(39, "2.1")}, "L4T 39.2.1"),
        (SERVER, "None"),
        (
            {"var/lib/dpkg/status": DPKG.format(version="36.4.3").replace("ok installed", "ok not-installed")},
            "None",
        ),
        ({"etc/nv_tegra_release": "something else"}, "None"),
    ],
)
def test_release(tmp_path: Path, tree: Tree, expected: str) -> None:
    assert str(jetson.release(plant(tmp_path, tree))) == expected


def test_the_file_is_asked_before_the_package(tmp_path: Path) -> None:
    plant(tmp_path, ORIN_NX, {"var/lib/dpkg/status": DPKG.format(version="36.3.0-1")})
    assert jetson.release(tmp_path) == jetson.Release("36.4.4", "6.2.1")


def test_model(tmp_path: Path) -> None:
    assert jetson.model(plant(tmp_path, AGX_ORIN)) == "NVIDIA Jetson AGX Orin Developer Kit"
    assert jetson.is_jetson(tmp_path)
    assert jetson.model(tmp_path / "nowhere") is None
    assert not jetson.is_jetson(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (ORIN_NANO, jetson.PowerMode("MAXN_SUPER", 2)),
        (ORIN_NX, jetson.PowerMode("MAXN", 0)),
        (THOR, jetson.PowerMode("120W", 1)),
        (SERVER, jetson.PowerMode(None, None, "not a Jetson")),
    ],
)
def test_power_mode_from_files(tmp_path: Path, tree: Tree, expected: jetson.PowerMode) -> None:
    assert jetson.power_mode(plant(tmp_path, tree), command=None) == expected


def test_a_mode_without_a_name(tmp_path: Path) -> None:
    plant(tmp_path, ORIN_NX, {"var/lib/nvpmodel/status": "pmode:0007"})
    mode = jetson.power_mode(tmp_path)
    assert mode == jetson.PowerMode(None, 7, "/etc/nvpmodel.conf does not name this mode")
    assert str(mode) == "(mode 7)"


def tool(folder: Path, script: str) -> str:
    path = folder / "nvpmodel"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (
            'echo "NVPM WARN: fan mode is not set!"; echo "NV Power Mode: MAXN"; echo 0',
            jetson.PowerMode("MAXN", 0),
        ),
        ('[ "$1" = -q ] && printf "NV Power Mode: MODE_30W\\n2\\n"', jetson.PowerMode("MODE_30W", 2)),
        ('echo "NV Power Mode: 15W"', jetson.PowerMode("15W", None)),
        (
            'echo "NVPM ERROR: failed to open status" >&2; exit 7',
            jetson.PowerMode(None, None, "nvpmodel -q ended with 7: NVPM ERROR: failed to open status"),
        ),
    ],
)
def test_power_mode_from_the_tool(tmp_path: Path, script: str, expected: jetson.PowerMode) -> None:
    plant(tmp_path, NANO)
    assert jetson.power_mode(tmp_path, command=tool(tmp_path, script)) == expected


def test_neither_files_nor_tool(tmp_path: Path) -> None:
    mode = jetson.power_mode(plant(tmp_path, NANO), command="nvpmodel-that-is-not-there")
    assert (mode.name, mode.number) == (None, None)
    assert "/var/lib/nvpmodel/status" in str(mode)
