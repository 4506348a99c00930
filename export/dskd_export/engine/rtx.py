"""TensorRT-RTX 1: GeForce and RTX GPUs from Turing on, no Jetson.

It builds without a GPU for named compute capabilities and compiles the rest where the engine is loaded
(docs.nvidia.com/deeplearning/tensorrt-rtx/latest, "CPU-Only AOT and TensorRT-RTX Engines"). Its timing
cache is a deprecated no-op, and there is no DLA.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dskd_export.engine import common
from dskd_export.engine.api import BuildOptions, Failure, Plan, Refusal
from dskd_export.engine.common import make_logger
from dskd_export.engine.loaded import LoadedContext, LoadedEngine, refit
from dskd_export.engine.log import Log, words_of
from dskd_export.errors import EnvironmentProblem, UsageError


class TensorRtRtx:
    """The adapter."""

    name = "tensorrt-rtx"
    targets = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
    keeps_timing_cache = False
    max_opset = 24  # as TensorRT's parser of the same time

    def __init__(self, trt: Any) -> None:
        self._trt = trt

    @property
    def version(self) -> str:
        """TensorRT-RTX's version."""
        return str(self._trt.__version__)

    def refused(self, model: bytes, path: Path) -> tuple[Refusal, ...]:
        """Nodes that the parser does not take."""
        return common.refused(self._trt, common.open_bench(self._trt, 0), model, path)

    def build(self, model: bytes, path: Path, options: BuildOptions, cache: bytes | None) -> Plan | Failure:
        """Build an engine, for this GPU or ahead of time for others."""
        trt = self._trt
        if options.dla_core is not None:
            raise EnvironmentProblem("TensorRT-RTX runs on no DLA.", "Leave --dla out, or build with TensorRT.")
        if options.hardware != "none":
            raise EnvironmentProblem(
                "TensorRT-RTX has no levels of hardware compatibility.",
                f"Name the compute capabilities instead: --target {','.join(self.targets)}",
            )
        bench = common.open_bench(trt, 0)
        config = bench.config
        if failure := common.parse(bench, model, path) or common.check_profiles(bench, options):
            return failure
        flags = common.configure(trt, bench, options)
        config.num_compute_capabilities = len(options.targets) or 1
        for index, target in enumerate(options.targets):
            if not config.set_compute_capability(self._capability(target), index):
                raise UsageError(f"TensorRT-RTX does not build for {target}.", "Name another --target.")
        if not options.targets and not config.set_compute_capability(trt.ComputeCapability.CURRENT, 0):
            raise EnvironmentProblem(
                "TensorRT-RTX finds no GPU to build for.", f"Name what to build for: --target {self.targets[0]}"
            )
        return common.serialize(bench, flags, keeps_timing_cache=False)

    def _capability(self, target: str) -> Any:
        trt = self._trt
        known = {
            "sm75": trt.ComputeCapability.SM75,
            "sm80": trt.ComputeCapability.SM80,
            "sm86": trt.ComputeCapability.SM86,
            "sm89": trt.ComputeCapability.SM89,
            "sm120": trt.ComputeCapability.SM120,
            "sm121": trt.ComputeCapability.SM121,
        }
        return known[target]

    def open(self, plan: bytes, *, host_code: bool = False) -> RtxEngine:
        """Load an engine, once TensorRT-RTX has said that it fits."""
        return RtxEngine(self._trt, plan, host_code)

    def refit(self, plan: bytes, model: bytes, path: Path, *, host_code: bool = False) -> bytes:
        """Put weights into an engine; it stays refittable."""
        trt = self._trt
        flags = (trt.SerializationFlag.INCLUDE_REFIT,)
        return refit(trt, plan, model, path, host_code=host_code, flags=flags)

    def merge_timing_caches(self, first: bytes, second: bytes) -> bytes:
        """There are none: TensorRT-RTX measures nothing when it builds."""
        raise EnvironmentProblem("TensorRT-RTX keeps no timing cache.", "Build without one.")


class RtxEngine(LoadedEngine):
    """An engine of TensorRT-RTX."""

    def __init__(self, trt: Any, plan: bytes, host_code: bool) -> None:
        log = Log()
        logger = make_logger(trt, log)
        runtime = trt.Runtime(logger)
        validity, diagnostics = runtime.get_engine_validity(plan)
        if validity == trt.EngineValidity.INVALID:
            reasons = {
                "it is of another version": trt.EngineInvalidityDiagnostics.VERSION_MISMATCH,
                "it is for another compute capability": trt.EngineInvalidityDiagnostics.UNSUPPORTED_CC,
                "the NVIDIA driver is too old": trt.EngineInvalidityDiagnostics.OLD_CUDA_DRIVER,
                "the CUDA runtime is too old": trt.EngineInvalidityDiagnostics.OLD_CUDA_RUNTIME,
                "the GPU has too little memory": trt.EngineInvalidityDiagnostics.INSUFFICIENT_GPU_MEMORY,
                "it is damaged": trt.EngineInvalidityDiagnostics.MALFORMED_ENGINE,
                "CUDA does not work": trt.EngineInvalidityDiagnostics.CUDA_ERROR,
            }
            named = [words for words, bit in reasons.items() if int(diagnostics) & int(bit)]
            raise EnvironmentProblem(
                f"TensorRT-RTX does not take this engine: {', '.join(named) or words_of(log.errors)}.",
                "Build it for this machine: dskd-compress build",
            )
        super().__init__(trt, plan, host_code)

    def context(self) -> RtxContext:
        """A new execution context."""
        return RtxContext(self._trt, self._engine, self._log)


class RtxContext(LoadedContext):
    """One execution of an engine of TensorRT-RTX, which may still have kernels to compile."""

    def can_be_captured(self, stream: int) -> bool:
        """Whether the next call can become a CUDA graph."""
        context = self.raw
        return bool(context.is_stream_capturable(stream))
