"""Python and the packages that the purposes need."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass

from dskd_export import codes
from dskd_export.codes import Code
from dskd_export.doctor.finding import Finding, Level, Purpose, finding


@dataclass(frozen=True)
class Package:
    """A package that some purpose needs.

    Attributes:
        code: of its check.
        minimum: oldest version that the distribution asks for.
        extra: the extra that brings it; None for the base dependencies, which everything needs.
        needed_for: purposes that cannot do without it.
    """

    code: Code
    name: str
    minimum: str
    extra: str | None
    needed_for: frozenset[Purpose] = frozenset()


_TRAIN: frozenset[Purpose] = frozenset({"train", "export"})
_EXPORT: frozenset[Purpose] = frozenset({"export"})
_RUN: frozenset[Purpose] = frozenset({"export", "benchmark"})

PACKAGES: tuple[Package, ...] = (
    Package(codes.NUMPY, "numpy", "1.24", None),
    Package(codes.PYDANTIC, "pydantic", "2.7", None),
    Package(codes.PYYAML, "pyyaml", "6.0", None),
    Package(codes.TYPER, "typer", "0.15", None),
    Package(codes.RICH, "rich", "13.7", None),
    Package(codes.PILLOW, "pillow", "10.0", None),
    Package(codes.JINJA2, "jinja2", "3.1", None),
    Package(codes.TORCH, "torch", "2.9", "train", _TRAIN),
    Package(codes.TORCHVISION, "torchvision", "0.24", "train", _TRAIN),
    Package(codes.TIMM, "timm", "1.0.31", "train", _TRAIN),
    Package(codes.SAFETENSORS, "safetensors", "0.4.5", "train", _TRAIN),
    Package(codes.SCIKIT_LEARN, "scikit-learn", "1.3", "train"),
    Package(codes.ONNX, "onnx", "1.17", "onnx", _EXPORT),
    Package(codes.ONNXSCRIPT, "onnxscript", "0.5", "onnx", _EXPORT),
    Package(codes.ONNXRUNTIME, "onnxruntime", "1.20", "onnx", _RUN),
    # Nothing but some precisions needs these, and `export` refuses them at its start.
    Package(codes.MODELOPT, "nvidia-modelopt", "0.47", "quant"),
    Package(codes.ONNXCONVERTER, "onnxconverter-common", "1.16", "quant"),
)


def version_of(package: str) -> str | None:
    """The version that is installed; None: it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def numbers(version: str) -> tuple[int, ...]:
    """Leading numbers: `2.13.0+cpu` -> (2, 13, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def look_at_python() -> Iterator[Finding]:
    """Which Python this is; an older one cannot import this module, so there is nothing to find wrong."""
    what = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    yield finding(codes.PYTHON, "ok", what)


def look_at_packages(purpose: Purpose | None) -> Iterator[Finding]:
    """Each package: is it there, and new enough?"""
    for package in PACKAGES:
        required = package.extra is None or purpose in package.needed_for
        level: Level = "error" if required else "warning"
        target = "dskd-compress" if package.extra is None else f"'dskd-compress[{package.extra}]'"
        version = version_of(package.name)
        if version is None:
            # The GPU build of ONNX Runtime is another distribution of the same module.
            version = version_of("onnxruntime-gpu") if package.name == "onnxruntime" else None
        if version is None:
            yield finding(package.code, level, f"{package.name} is not installed", f"pip install {target}")
        elif numbers(version) < numbers(package.minimum):
            what = f"{package.name} {version} is older than {package.minimum}"
            yield finding(package.code, level, what, f"pip install --upgrade {target}")
        else:
            yield finding(package.code, "ok", f"{package.name} {version}")


def look_at_torchvision() -> Iterator[Finding]:
    """torch and torchvision come in pairs, of one release and of one build."""
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
    if pinned is not None and numbers(pinned) != numbers(torch):
        what = f"torchvision {torchvision} belongs to torch {pinned}, torch is {torch}"
        yield finding(codes.TORCH_PAIR, "warning", what)
    elif torch.endswith("+cpu") and not torchvision.endswith("+cpu"):
        what = (
            f"torch {torch} is the CPU build, torchvision {torchvision} another; torchvision.ops is not available"
        )
        yield finding(codes.TORCH_PAIR, "ok", what)
    else:
        yield finding(codes.TORCH_PAIR, "ok", f"torch {torch} and torchvision {torchvision} belong together")
