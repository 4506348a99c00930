"""What the adapters of all TensorRT generations share: one build, in the order that TensorRT needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dskd_export.engine import common
from dskd_export.engine.api import BackendName, BuildOptions, Failure, Plan, Refusal
from dskd_export.engine.loaded import LoadedEngine, refit
from dskd_export.errors import DataError
from dskd_export.files.atomic import sha256_bytes, write_atomic


class TensorRtAdapter:
    """Build, load and refit with TensorRT's module, which nothing else touches; a generation overrides the rest.

    Args:
        trt: TensorRT's module.
    """

    name: BackendName = "tensorrt"
    targets: tuple[str, ...] = ()
    keeps_timing_cache = True
    max_opset: int

    def __init__(self, trt: Any) -> None:
        self._trt = trt

    @property
    def version(self) -> str:
        """TensorRT's version."""
        return str(self._trt.__version__)

    def find_refusals(self, model: bytes, path: Path) -> tuple[Refusal, ...]:
        """List the nodes that the parser does not support; `path`: where weights next to the model are found."""
        return common.find_refusals(self._trt, self._start(), model, path)

    def build(self, model: bytes, path: Path, options: BuildOptions, cache: bytes | None) -> Plan | Failure:
        """Build an engine; arguments as for `find_refusals`, and a timing cache of this version and device.

        Raises:
            EnvironmentProblem: this generation, or this machine, does not support the options.
        """
        trt = self._trt
        self._check(options)
        session = self._start()
        self._prepare_parser(session, options)
        if failure := common.parse(session, model, path) or common.check_profiles(session, options):
            return failure
        flags = common.configure(trt, session, options)
        self._configure(session, options)
        dla = None
        if options.dla_core is not None:
            dla = common.use_dla(trt, session, options.dla_core)
            flags = (*flags, "GPU_FALLBACK")
        if self.keeps_timing_cache:
            common.use_timing_cache(session, cache)
        return common.serialize(session, flags, dla=dla, keeps_timing_cache=self.keeps_timing_cache)

    def open(self, plan: bytes, *, host_code: bool = False) -> LoadedEngine:
        """Load an engine on the GPU.

        Args:
            plan: the engine.
            host_code: let it run its own code on the CPU, which a version-compatible engine contains. Its author
                is then trusted like the author of a program.

        Raises:
            EnvironmentProblem: TensorRT does not load it.
        """
        return LoadedEngine(self._trt, plan, host_code)

    def refit(self, plan: bytes, model: bytes, path: Path, *, host_code: bool = False) -> bytes:
        """Put the weights of a model into an engine; arguments as above.

        Raises:
            EnvironmentProblem: TensorRT does not load the engine.
            ModelError: the engine needs other weights than the model has.
        """
        return refit(self._trt, plan, model, path, host_code=host_code, flags=self._refit_flags())

    def merge_timing_caches(self, first: bytes, second: bytes) -> bytes:
        """Merge two timing caches of this version; entries of the first win."""
        return common.merge(self._start(), first, second)

    def _start(self) -> common.BuildSession:
        return common.open_session(self._trt, self._network_flags())

    def _network_flags(self) -> int:
        """Flags of a new network; 0 where strong typing is always on."""
        return 0

    def _refit_flags(self) -> tuple[Any, ...]:
        """Serialization flags of a refitted engine."""
        return ()

    def _check(self, options: BuildOptions) -> None:
        """Refuse options that this generation does not support."""

    def _prepare_parser(self, session: common.BuildSession, options: BuildOptions) -> None:
        """Set the parser's flags."""

    def _configure(self, session: common.BuildSession, options: BuildOptions) -> None:
        """Set what only this generation has."""


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
