"""TensorRT 10.3 to 10.16: JetPack 6.1 to 7.1, and servers.

Strong typing is a flag of the network here. Everything that names a precision is deprecated in this
generation and gone in the next, and is never used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dskd_export.engine import common
from dskd_export.engine.api import BuildOptions, Failure, Plan, Refusal
from dskd_export.engine.loaded import LoadedEngine, refit
from dskd_export.errors import EnvironmentProblem

# Version -> newest operator set that its parser reads: onnx-tensorrt, docs/operators.md of 10.0 and 10.15;
# 10.6 came with ONNX 1.17 (docs/Changelog.md).
_OPSETS = (((10, 15), 24), ((10, 6), 22), ((10, 0), 20))


class TensorRt10:
    """The adapter."""

    name = "tensorrt"
    targets: tuple[str, ...] = ()
    keeps_timing_cache = True

    def __init__(self, trt: Any) -> None:
        self._trt = trt

    @property
    def version(self) -> str:
        """TensorRT's version."""
        return str(self._trt.__version__)

    @property
    def max_opset(self) -> int:
        """The newest operator set of the parser."""
        major, minor = (int(part) for part in self.version.split(".")[:2])
        return next(opset for since, opset in _OPSETS if (major, minor) >= since)

    def refused(self, model: bytes, path: Path) -> tuple[Refusal, ...]:
        """Nodes that the parser does not take."""
        return common.refused(self._trt, self._bench(), model, path)

    def build(self, model: bytes, path: Path, options: BuildOptions, cache: bytes | None) -> Plan | Failure:
        """Build an engine."""
        trt = self._trt
        bench = self._bench()
        config = bench.config
        if failure := common.parse(bench, model, path) or common.check_profiles(bench, options):
            return failure
        flags = common.configure(trt, bench, options)
        if options.hardware == "ampere-plus":
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        elif options.hardware == "same-compute-capability":
            if not hasattr(trt.HardwareCompatibilityLevel, "SAME_COMPUTE_CAPABILITY"):
                raise EnvironmentProblem(
                    f"TensorRT {self.version} builds no engines for all GPUs of one compute capability.",
                    "Use --hardware ampere-plus, or a newer TensorRT.",
                )
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
        dla = None
        if options.dla_core is not None:
            dla = common.use_dla(trt, bench, options.dla_core)
            flags = (*flags, "GPU_FALLBACK")
        common.use_timing_cache(bench, cache)
        return common.serialize(bench, flags, dla=dla, keeps_timing_cache=True)

    def open(self, plan: bytes, *, host_code: bool = False) -> LoadedEngine:
        """Load an engine."""
        return LoadedEngine(self._trt, plan, host_code)

    def refit(self, plan: bytes, model: bytes, path: Path, *, host_code: bool = False) -> bytes:
        """Put weights into an engine, which then takes no others: the flag for that is not in all of 10."""
        return refit(self._trt, plan, model, path, host_code=host_code)

    def merge_timing_caches(self, first: bytes, second: bytes) -> bytes:
        """One timing cache of two."""
        return common.merge(self._bench(), first, second)

    def _bench(self) -> common.Bench:
        trt = self._trt
        return common.open_bench(trt, 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
