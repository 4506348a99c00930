"""What will work on this machine, found out before any work. Imports neither torch nor timm.

A code is DSKD-<letter><number>: the number belongs to the check, the letter is its outcome (I fine,
W warning, E error). 1xx are packages, 2xx devices, 3xx the machine and the folder.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Optional

from pydantic import Field

from dskd_export.documents import Document

Level = Literal["ok", "warning", "error"]
Purpose = Literal["train", "export", "benchmark"]

_LETTER: dict[Level, str] = {"ok": "I", "warning": "W", "error": "E"}


class Finding(Document):
    """The outcome of one check."""

    code: str = Field(pattern=r"^DSKD-[IWE][0-9]{3}$")
    level: Level
    what: str
    cure: Optional[str] = Field(default=None, description="what to do about it; None where nothing is wrong")


@dataclass(frozen=True)
class Package:
    """A package that some purpose needs.

    Attributes:
        minimum: oldest version that the distribution asks for.
        extra: the extra that brings it; None for the base dependencies, which everything needs.
        needed_for: purposes that cannot do without it.
    """

    number: int
    name: str
    minimum: str
    extra: str | None
    needed_for: frozenset[Purpose] = frozenset()


_TRAIN: frozenset[Purpose] = frozenset({"train", "export"})
_EXPORT: frozenset[Purpose] = frozenset({"export"})
_RUN: frozenset[Purpose] = frozenset({"export", "benchmark"})

PACKAGES: tuple[Package, ...] = (
    Package(101, "numpy", "1.24", None),
    Package(102, "pydantic", "2.7", None),
    Package(103, "pyyaml", "6.0", None),
    Package(104, "typer", "0.15", None),
    Package(105, "rich", "13.7", None),
    Package(106, "pillow", "10.0", None),
    Package(107, "jinja2", "3.1", None),
    Package(111, "torch", "2.9", "train", _TRAIN),
    Package(112, "torchvision", "0.24", "train", _TRAIN),
    Package(113, "timm", "1.0.31", "train", _TRAIN),
    Package(114, "safetensors", "0.4.5", "train", _TRAIN),
    Package(115, "scikit-learn", "1.3", "train"),
    Package(121, "onnx", "1.17", "onnx", _EXPORT),
    Package(122, "onnxscript", "0.5", "onnx", _EXPORT),
    Package(123, "onnxruntime", "1.20", "onnx", _RUN),
)

_GIB = 1024**3


def diagnose(purpose: Purpose | None = None, folder: Path | None = None) -> list[Finding]:
    """Look at this machine.

    Args:
        purpose: what must work here: what it needs and is broken is an error. None: only what every
            command needs is an error, the rest is a warning.
        folder: where results will be written; None is the working directory.
    """
    where = folder if folder is not None else Path.cwd()
    return [
        *_python(),
        *_packages(purpose),
        *_torchvision(),
        *_onnxruntime(purpose),
        *_gpu(),
        *_tensorrt(),
        *_disk(where),
        *_memory(purpose),
        *_writable(where),
    ]


def _finding(number: int, level: Level, what: str, cure: str | None = None) -> Finding:
    return Finding(code=f"DSKD-{_LETTER[level]}{number}", level=level, what=what, cure=cure)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """Leading numbers: `2.13.0+cpu` -> (2, 13, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def _python() -> Iterator[Finding]:
    # An older Python cannot import this module, so there is nothing to find wrong here.
    yield _finding(100, "ok", f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")


def _packages(purpose: Purpose | None) -> Iterator[Finding]:
    for package in PACKAGES:
        required = package.extra is None or purpose in package.needed_for
        level: Level = "error" if required else "warning"
        target = "dskd-compress" if package.extra is None else f"'dskd-compress[{package.extra}]'"
        version = _version(package.name)
        if version is None:
            # The GPU build of ONNX Runtime is another distribution of the same module.
            version = _version("onnxruntime-gpu") if package.name == "onnxruntime" else None
        if version is None:
            yield _finding(package.number, level, f"{package.name} is not installed", f"pip install {target}")
        elif _numbers(version) < _numbers(package.minimum):
            what = f"{package.name} {version} is older than {package.minimum}"
            yield _finding(package.number, level, what, f"pip install --upgrade {target}")
        else:
            yield _finding(package.number, "ok", f"{package.name} {version}")


def _torchvision() -> Iterator[Finding]:
    """torch and torchvision come in pairs, of one release and of one build."""
    torch, torchvision = _version("torch"), _version("torchvision")
    if torch is None or torchvision is None:
        return
    pinned = next(
        (
            match.group(1)
            for requirement in importlib.metadata.requires("torchvision") or []
            if (match := re.match(r"torch\s*\(?==\s*([0-9.]+)", requirement))
        ),
        None,
    )
    if pinned is not None and _numbers(pinned) != _numbers(torch):
        what = f"torchvision {torchvision} belongs to torch {pinned}, torch is {torch}"
        yield _finding(116, "warning", what, "pip install --upgrade torch torchvision")
    elif torch.endswith("+cpu") and not torchvision.endswith("+cpu"):
        what = (
            f"torch {torch} is the CPU build, torchvision {torchvision} another; torchvision.ops is not available"
        )
        yield _finding(116, "ok", what)
    else:
        yield _finding(116, "ok", f"torch {torch} and torchvision {torchvision} belong together")


_IMPORT_ORT = "import json, onnxruntime as o; print(json.dumps([o.__version__, o.get_available_providers()]))"


def _onnxruntime(purpose: Purpose | None) -> Iterator[Finding]:
    """Whether it really imports; in a process of its own, which a broken library may take down."""
    if importlib.util.find_spec("onnxruntime") is None:
        return
    level: Level = "error" if purpose in _RUN else "warning"
    cure = "pip install --force-reinstall 'dskd-compress[onnx]'"
    try:
        done = subprocess.run(
            [sys.executable, "-c", _IMPORT_ORT],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
        )
    except subprocess.TimeoutExpired:
        yield _finding(124, level, "onnxruntime does not finish its import within 120 s", cure)
        return
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        yield _finding(124, level, f"onnxruntime does not import: {said[-1]}", cure)
        return
    version, providers = json.loads(done.stdout.strip().splitlines()[-1])
    yield _finding(124, "ok", f"onnxruntime {version} imports; providers: {', '.join(providers)}")


def _gpu() -> Iterator[Finding]:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        if Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi"):
            what = "an NVIDIA driver is here, but libcuda.so.1 cannot be loaded"
            cure = "Start the container with the NVIDIA runtime (--gpus all), or install the driver again."
            yield _finding(201, "warning", what, cure)
        else:
            yield _finding(201, "ok", "no NVIDIA GPU: everything runs on the CPU")
        return
    yield _finding(201, "ok", f"CUDA driver; {_gpu_names()}")


def _gpu_names() -> str:
    jetson = Path("/proc/device-tree/model")
    if jetson.exists():
        return jetson.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return "nvidia-smi does not answer, so the GPU's name is unknown"
    return "; ".join(line.strip() for line in done.stdout.splitlines() if line.strip())


def _tensorrt() -> Iterator[Finding]:
    found = [
        f"{name} {version}" for name in ("tensorrt", "tensorrt-rtx") if (version := _version(name)) is not None
    ]
    # A Jetson has TensorRT from the system, without a distribution of its own.
    if not found and importlib.util.find_spec("tensorrt") is not None:
        found = ["tensorrt of the system, version unknown"]
    if found:
        yield _finding(202, "ok", f"{' and '.join(found)}; this version does not build engines yet")
    else:
        yield _finding(202, "ok", "TensorRT is not installed; nothing needs it, engines are optional")


def _disk(folder: Path) -> Iterator[Finding]:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        yield _finding(301, "error", f"{folder}: {error.strerror}", "Work in another folder.")
        return
    what = f"{free / _GIB:.1f} GiB free in {folder}"
    if free < 0.1 * _GIB:
        yield _finding(301, "error", what, "Free some space: a run needs 0.5 to 2 GiB.")
    elif free < 2 * _GIB:
        yield _finding(301, "warning", what, "Free some space: a run needs 0.5 to 2 GiB.")
    else:
        yield _finding(301, "ok", what)


def _memory(purpose: Purpose | None) -> Iterator[Finding]:
    free = available_memory()
    if free is None:
        yield _finding(302, "warning", "free memory is unknown here", "Watch it during the first run.")
        return
    what = f"{free / _GIB:.1f} GiB of memory available"
    least = 0.5 if purpose == "benchmark" else 2.0
    if free < least * _GIB:
        yield _finding(302, "warning", what, "Close other programs, or lower train.batch_size and data.workers.")
    else:
        yield _finding(302, "ok", what)


def available_memory() -> int | None:
    """Bytes that a new program can have: what the kernel says, or less where the container is limited."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    match = re.search(r"^MemAvailable:\s+(\d+) kB", text, flags=re.MULTILINE)
    if match is None:
        return None
    free = int(match.group(1)) * 1024
    cgroup = Path("/sys/fs/cgroup")
    try:
        limit = (cgroup / "memory.max").read_text(encoding="ascii").strip()
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return free  # no limit that we can see
    return min(free, max(int(limit) - used, 0)) if limit.isdigit() else free


def _writable(folder: Path) -> Iterator[Finding]:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        what = f"{folder} cannot be written to: {error.strerror}"
        yield _finding(303, "error", what, "Work in another folder, or give one with --out.")
    else:
        yield _finding(303, "ok", f"{folder} can be written to")
