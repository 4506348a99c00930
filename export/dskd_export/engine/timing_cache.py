"""Measured times of kernels, kept beside the engines of one device: with the same cache, the same choice.

A cache is of one TensorRT version, which is in its name, and of one device, whose folder it lies in. Its
sha256 stands in every `build.json`, so a build can be pinned to it: with another content it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dskd_export.engine.api import Backend
from dskd_export.errors import DataError
from dskd_export.files.atomic import sha256_bytes, write_atomic


@dataclass(frozen=True)
class TimingCache:
    """The file of a cache.

    Attributes:
        content: as it was read; None: there was none.
    """

    path: Path
    content: bytes | None

    @property
    def sha256(self) -> str | None:
        """Of what was read."""
        return None if self.content is None else sha256_bytes(self.content)


def read_cache(folder: Path, backend: Backend, pinned_sha256: str | None = None) -> TimingCache:
    """The cache of a device for a TensorRT.

    Args:
        folder: of the device's engines.
        backend: whose version it must be of.
        pinned_sha256: what it must hold; None: anything.

    Raises:
        DataError: it does not hold what it is pinned to.
    """
    path = folder / f"timing-{backend.name}-{backend.version}.cache"
    cache = TimingCache(path, path.read_bytes() if path.is_file() else None)
    if pinned_sha256 is not None and cache.sha256 != pinned_sha256:
        there = f"holds {cache.sha256}" if cache.sha256 else "is missing"
        raise DataError(
            f"{path} {there}, and the build is pinned to {pinned_sha256}.",
            "Copy the timing cache of the build that is to be repeated there, or leave --timing-cache out.",
        )
    return cache


def write_cache(cache: TimingCache, content: bytes, backend: Backend) -> str:
    """Keep what a build measured; another build may have written the file meanwhile, and loses nothing.

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
