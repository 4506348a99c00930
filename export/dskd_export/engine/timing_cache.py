"""Kernel timings, kept next to the engines of one device: the same cache gives the same choice of kernels.

A cache belongs to one TensorRT version, which is in its name, and to the device whose folder holds it. Every
`build.json` records its sha256, so that a build can be pinned to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dskd_export.engine.adapter import TensorRtAdapter
from dskd_export.errors import DataError
from dskd_export.files.atomic import sha256_bytes, write_atomic


@dataclass(frozen=True)
class TimingCache:
    """The file of a cache.

    Attributes:
        content: as read; None: no file.
    """

    path: Path
    content: bytes | None

    @property
    def sha256(self) -> str | None:
        """Hash of the content that was read."""
        return None if self.content is None else sha256_bytes(self.content)


def read_cache(folder: Path, backend: TensorRtAdapter, pinned_sha256: str | None = None) -> TimingCache:
    """Read the timing cache of a device.

    Args:
        folder: of the device's engines.
        backend: the TensorRT it belongs to.
        pinned_sha256: required content; None: any.

    Raises:
        DataError: the content differs from the pinned one.
    """
    path = folder / f"timing-{backend.name}-{backend.version}.cache"
    cache = TimingCache(path, path.read_bytes() if path.is_file() else None)
    if pinned_sha256 is not None and cache.sha256 != pinned_sha256:
        there = f"holds {cache.sha256}" if cache.sha256 else "is missing"
        raise DataError(
            f"{path} {there}; the build is pinned to {pinned_sha256}.",
            "Copy the timing cache of the build to repeat there, or remove --timing-cache.",
        )
    return cache


def write_cache(cache: TimingCache, content: bytes, backend: TensorRtAdapter) -> str:
    """Write the timings of a build; merge with what another build wrote meanwhile.

    Returns:
        The sha256 of what was written.
    """
    if cache.path.is_file():
        there = cache.path.read_bytes()
        if there not in (cache.content, content):
            content = backend.merge_timing_caches(content, there)
    if content != cache.content:
        write_atomic(cache.path, content)
    return sha256_bytes(content)
