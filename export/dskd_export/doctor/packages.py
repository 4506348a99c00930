"""Check Python and the packages that each purpose needs."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections.abc import Iterator
from typing import NamedTuple, get_args

from dskd_export import codes
from dskd_export.codes import Code
from dskd_export.doctor.finding import Finding, Level, Purpose, make_finding
from dskd_export.precision import modelopt

DISTRIBUTION = "dskd-compress"


class Package(NamedTuple):
    """A package, its code, and the purposes that cannot do without it."""

    code: Code
    name: str
    needed_for: frozenset[Purpose | None] = frozenset()


_ALWAYS = frozenset[Purpose | None]({None, *get_args(Purpose)})
_TRAIN = frozenset[Purpose | None]({"train", "export"})
_EXPORT = frozenset[Purpose | None]({"export"})
_RUN = frozenset[Purpose | None]({"export", "benchmark"})

PACKAGES: tuple[Package, ...] = (
    Package(codes.NUMPY, "numpy", _ALWAYS),
    Package(codes.PYDANTIC, "pydantic", _ALWAYS),
    Package(codes.PYYAML, "pyyaml", _ALWAYS),
    Package(codes.TYPER, "typer", _ALWAYS),
    Package(codes.RICH, "rich", _ALWAYS),
    Package(codes.PILLOW, "pillow", _ALWAYS),
    Package(codes.JINJA2, "jinja2", _ALWAYS),
    Package(codes.TORCH, "torch", _TRAIN),
    Package(codes.TORCHVISION, "torchvision", _TRAIN),
    Package(codes.TIMM, "timm", _TRAIN),
    Package(codes.SAFETENSORS, "safetensors", _TRAIN),
    Package(codes.SCIKIT_LEARN, "scikit-learn"),
    Package(codes.ONNX, "onnx", _EXPORT),
    Package(codes.ONNXSCRIPT, "onnxscript", _EXPORT),
    Package(codes.ONNXRUNTIME, "onnxruntime", _RUN),
    # Only some precisions need these, and `export` checks for them at its start.
    Package(codes.MODELOPT, "nvidia-modelopt"),
    Package(codes.ONNXCONVERTER, "onnxconverter-common"),
)


def read_minimums() -> dict[str, str]:
    """Read the oldest versions that the installed distribution requires, by package."""
    try:
        required = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        required = []
    found = (re.match(r"([\w.-]+)>=([0-9.]+)", text) for text in required)
    return {match[1].lower(): match[2] for match in found if match}


def version_of(package: str) -> str | None:
    """Return the installed version; None: not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def parse_version(version: str) -> tuple[int, ...]:
    """Parse the leading numbers: `2.13.0+cpu` -> (2, 13, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def check_python() -> Iterator[Finding]:
    """Report the Python version; an older one than the oldest supported cannot import this module."""
    what = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    yield make_finding(codes.PYTHON, "ok", what)


def check_packages(purpose: Purpose | None) -> Iterator[Finding]:
    """Check that each package is installed and new enough."""
    minimums = read_minimums()
    for package in PACKAGES:
        level: Level = "error" if purpose in package.needed_for else "warning"
        version, minimum = version_of(package.name), minimums.get(package.name, "0")
        if version is None:
            # The GPU build of ONNX Runtime is another distribution of the same module.
            version = version_of("onnxruntime-gpu") if package.name == "onnxruntime" else None
        if version is None:
            yield make_finding(package.code, level, f"{package.name} is not installed")
        elif parse_version(version) < parse_version(minimum):
            yield make_finding(package.code, level, f"{package.name} {version} is older than {minimum}")
        elif package.code is codes.MODELOPT and (lacks := modelopt.list_missing()):
            yield make_finding(package.code, level, f"{package.name} {version} lacks {', '.join(lacks)}")
        else:
            yield make_finding(package.code, "ok", f"{package.name} {version}", found=[version])


def check_torchvision() -> Iterator[Finding]:
    """Check that torch and torchvision are of one release and one build."""
    torch, torchvision = version_of("torch"), version_of("torchvision")
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
    if pinned is not None and parse_version(pinned) != parse_version(torch):
        what = f"torchvision {torchvision} needs torch {pinned}, torch is {torch}"
        yield make_finding(codes.TORCH_PAIR, "warning", what)
    elif torch.endswith("+cpu") and not torchvision.endswith("+cpu"):
        what = f"torch {torch} is the CPU build, torchvision {torchvision} is not: torchvision.ops is unavailable"
        yield make_finding(codes.TORCH_PAIR, "ok", what)
    else:
        yield make_finding(codes.TORCH_PAIR, "ok", f"torch {torch} and torchvision {torchvision} match")
