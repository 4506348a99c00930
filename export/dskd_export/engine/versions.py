"""TensorRT versions that are supported, and where a system keeps TensorRT. Needs only Python."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

Capability = tuple[int, int]
"""Compute capability of a GPU: major, minor."""

OLDEST_CAPABILITY: Capability = (7, 5)
"""TensorRT 10 and 11 run on this and all newer ones (support matrix, "Hardware and precision")."""


@dataclass(frozen=True)
class Versions:
    """Versions of a Python module that one adapter serves: from `since` to before `before`.

    Attributes:
        capabilities: that it runs on; None: the oldest and all newer ones.
    """

    module: str
    since: tuple[int, int]
    before: tuple[int, int]
    capabilities: frozenset[Capability] | None = None

    def runs_on(self, capability: Capability) -> bool:
        """Whether it runs on a GPU of this compute capability."""
        return capability >= OLDEST_CAPABILITY if self.capabilities is None else capability in self.capabilities


TENSORRT_10 = Versions("tensorrt", (10, 3), (11, 0))
TENSORRT_11 = Versions("tensorrt", (11, 0), (12, 0))
_RTX_CAPABILITIES: tuple[Capability, ...] = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
TENSORRT_RTX = Versions("tensorrt_rtx", (1, 0), (2, 0), frozenset(_RTX_CAPABILITIES))
RTX_TARGETS = tuple(f"sm{major}{minor}" for major, minor in _RTX_CAPABILITIES)
"""Compute capabilities that TensorRT-RTX builds for ahead of time."""
_EXAMPLE_TARGET = "sm86"  # not the first: fp32 cannot be built for sm75
SUPPORTED = (TENSORRT_10, TENSORRT_11, TENSORRT_RTX)


def versions_of(module: str, version: tuple[int, ...]) -> Versions | None:
    """What serves a version of a module; None: nothing does."""
    served = (one for one in SUPPORTED if one.module == module)
    return next((one for one in served if one.since <= version[:2] < one.before), None)


def range_of(module: str) -> tuple[str, str]:
    """The oldest version of a module that is used, and the first that is not."""
    served = [one for one in SUPPORTED if one.module == module]
    since, before = min(one.since for one in served), max(one.before for one in served)
    return f"{since[0]}.{since[1]}", f"{before[0]}.{before[1]}"


def format_targets(targets: Sequence[str]) -> str:
    """Format the option of one target, which can be pasted, and name the others after it."""
    chosen = _EXAMPLE_TARGET if _EXAMPLE_TARGET in targets else targets[-1]
    others = ", ".join(target for target in targets if target != chosen)
    return f"--compute-capability {chosen}" + (f" (or {others}; several with commas)" if others else "")


def system_folders(root: Path = Path("/")) -> tuple[Path, ...]:
    """Where the system's Python keeps packages, for this version of Python.

    On a Jetson TensorRT comes with the system, in dist-packages. A virtual environment does not see it there;
    as long as both are the same Python it can be loaded from there alone.
    """
    version = f"python3.{sys.version_info.minor}"
    return tuple(root / "usr/lib" / name / "dist-packages" for name in (version, "python3"))
