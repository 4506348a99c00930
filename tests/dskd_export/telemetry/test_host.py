from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dskd_export.telemetry import host
from dskd_export.telemetry.host import (
    cpu_quota,
    driver_version,
    governor,
    host_facts,
    parse_cpu_max,
    parse_cpu_model,
    parse_driver_version,
    parse_simd,
    usable_cores,
)

X86 = (
    "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel\t\t: 85\nmodel name\t: Intel(R) Xeon(R)   CPU @ 2.00GHz\n\n"
)
JETSON = (
    "processor\t: 0\nmodel name\t: ARMv8 Processor rev 1 (v8l)\nBogoMIPS\t: 62.50\n"
    "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd42\nCPU revision\t: 1\n\n"
)
PI = JETSON.replace("0xd42", "0xd08") + "Hardware\t: BCM2835\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n"


def arm(implementer: int, part: int) -> str:
    return f"processor\t: 0\nCPU implementer\t: {implementer:#04x}\nCPU part\t: {part:#05x}\n\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (X86 * 2, "Intel(R) Xeon(R) CPU @ 2.00GHz"),
        (JETSON * 8, "Cortex-A78AE"),
        (PI, "Cortex-A72"),
        (arm(0x41, 0xD05) * 4 + arm(0x41, 0xD0B) * 2, "4x Cortex-A55 + 2x Cortex-A76"),
        (arm(0x4E, 0x004), "Carmel"),
        (arm(0x61, 0x022), "Arm core 0x61/0x022"),
        ("processor\t: 0\nHardware\t: Some SoC\n", "Some SoC"),
        ("cpu\t\t: POWER9, altivec supported\n", "POWER9, altivec supported"),
        ("processor : 0\n", None),
        ("", None),
    ],
)
def test_cpu_model(text: str, expected: str | None) -> None:
    assert parse_cpu_model(text) == expected


def test_memory() -> None:
    total = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    assert total is not None
    assert host_facts().memory_gb == pytest.approx(int(total[1]) * 1024 / 1e9, rel=0.05)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200000 100000", 2),
        ("150000 100000\n", 1.5),
        ("max 100000", None),
        ("-1 100000", None),
        ("5 0", None),
        ("", None),
    ],
)
def test_cpu_max(text: str, expected: float | None) -> None:
    assert parse_cpu_max(text) == expected


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_quota_of_control_groups_version_2(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path, "0::/user/job\n") is None
    write(tmp_path / "user/job/cpu.max", "max 100000\n")
    assert cpu_quota(tmp_path, "0::/user/job\n") is None
    write(tmp_path / "user/cpu.max", "350000 100000\n")
    assert cpu_quota(tmp_path, "0::/user/job\n") == 3.5
    write(tmp_path / "cpu.max", "200000 100000\n")
    assert cpu_quota(tmp_path, "0::/user/job\n") == 2  # the strictest ancestor
    assert cpu_quota(tmp_path, "0::/\n") == 2


def test_quota_of_control_groups_version_1(tmp_path: Path) -> None:
    membership = "4:memory:/job\n3:cpu,cpuacct:/job\n2:cpuset:/\n0::/\n"
    write(tmp_path / "cpu,cpuacct/job/cpu.cfs_quota_us", "-1\n")
    write(tmp_path / "cpu,cpuacct/job/cpu.cfs_period_us", "100000\n")
    assert cpu_quota(tmp_path, membership) is None
    write(tmp_path / "cpu,cpuacct/job/cpu.cfs_quota_us", "50000\n")
    assert cpu_quota(tmp_path, membership) == 0.5


def test_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(host, "_read", lambda path: "0::/" if "self" in str(path) else Path(path).read_text())
    for quota, expected in [("max", 8), ("250000", 3), ("10000", 1), ("9900000", 8)]:
        write(tmp_path / "cpu.max", f"{quota} 100000")
        write(tmp_path / "unified/cpu.max", "max 100000")
        assert usable_cores(tmp_path) == expected
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert usable_cores(tmp_path) == 5


def test_governor(tmp_path: Path) -> None:
    assert governor(tmp_path) is None
    write(tmp_path / "cpu0/cpufreq/scaling_governor", "schedutil\n")
    write(tmp_path / "cpu1/cpufreq/scaling_governor", "schedutil\n")
    assert governor(tmp_path) == "schedutil"
    write(tmp_path / "cpu10/cpufreq/scaling_governor", "performance\n")
    assert governor(tmp_path) == "performance, schedutil"


def test_facts_of_this_machine() -> None:
    facts = host_facts()
    assert facts.device == "cpu"
    assert facts.cpu
    assert 1 <= facts.cores <= (os.cpu_count() or 1)
    assert facts.memory_gb > 0.1
    assert (facts.gpu, facts.driver) == (None, None)
    assert "linux" in facts.platform.lower() or sys.platform != "linux"


def test_facts_of_a_jetson(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/cpuinfo": JETSON * 8,
        "/proc/device-tree/model": "NVIDIA Jetson Orin NX\0",
    }
    monkeypatch.setattr(host, "_read", lambda path: files.get(str(path), ""))
    monkeypatch.setattr(host, "cuda_devices", lambda: ("Orin",))
    monkeypatch.setattr(host, "driver_version", lambda: "540.4.0")
    facts = host_facts("cuda:0")
    assert facts.cpu == "Cortex-A78AE, NVIDIA Jetson Orin NX"
    assert (facts.device, facts.gpu, facts.driver) == ("cuda:0", "Orin", "540.4.0")
    assert host_facts("cuda").gpu == "Orin"
    assert host_facts("cuda:1").gpu is None


# --- the driver's version


@pytest.fixture(autouse=True)
def _fresh():
    driver_version.cache_clear()
    yield
    driver_version.cache_clear()


class NVMLError(Exception):
    __module__ = "pynvml"


def fake_nvml(version: object) -> SimpleNamespace:
    def get() -> object:
        if isinstance(version, Exception):
            raise version
        return version

    return SimpleNamespace(nvmlInit=lambda: None, nvmlShutdown=lambda: None, nvmlSystemGetDriverVersion=get)


def fake_smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    path = tmp_path / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@pytest.mark.parametrize("version", ["560.35.03", b"560.35.03"])
def test_driver_from_nvml(monkeypatch: pytest.MonkeyPatch, version: object) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(version))
    assert driver_version() == "560.35.03"


@pytest.mark.parametrize("nvml", [None, fake_nvml(NVMLError("no NVML here"))], ids=["missing", "failing"])
@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 550.54.14; echo 550.54.14", "550.54.14"),
        ("echo NVIDIA-SMI has failed; exit 9", None),
        ("echo N/A", None),
    ],
)
def test_driver_from_nvidia_smi(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nvml: object, script: str, expected: str | None
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    fake_smi(monkeypatch, tmp_path, script)
    assert driver_version() == expected


def test_no_way_to_ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert driver_version() is None


def test_our_own_mistakes_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(TypeError("a bug")))
    with pytest.raises(TypeError, match="a bug"):
        driver_version()


def test_driver_text() -> None:
    assert parse_driver_version("535.129.03\n535.129.03\n") == "535.129.03"
    assert parse_driver_version("") is None
    assert parse_driver_version("Failed to initialize NVML") is None


@pytest.mark.gpu
def test_a_real_gpu() -> None:
    smi = subprocess.run(
        ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True
    )
    assert host_facts("cuda:0").gpu in smi.stdout.splitlines()


@pytest.mark.parametrize(
    ("cpuinfo", "simd"),
    [
        ("flags\t\t: fpu sse4_2 avx2 avx512f avx512_vnni", "AVX-512 VNNI"),
        ("flags\t\t: sse4_2 avx2 avx512f avx512_vnni amx_int8", "AVX-512 VNNI AMX"),
        ("flags\t\t: sse4_2 avx2 avx_vnni", "AVX2 VNNI"),
        ("flags\t\t: sse4_2", "SSE4.2"),
        ("Features\t: fp asimd asimddp", "NEON DOT"),
        ("Features\t: fp asimd asimddp i8mm sve sve2", "SVE2 I8MM DOT"),
        ("flags\t\t: fpu", None),
        ("", None),
    ],
)
def test_simd(cpuinfo: str, simd: str | None) -> None:
    assert parse_simd(cpuinfo) == simd
