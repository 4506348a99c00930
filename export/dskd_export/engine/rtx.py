"""TensorRT-RTX 1: GeForce and RTX GPUs from Turing on, no Jetson.

It builds without a GPU for named compute capabilities and compiles the rest when the engine is loaded
(docs.nvidia.com/deeplearning/tensorrt-rtx/latest, "CPU-Only AOT and TensorRT-RTX Engines"). Its timing
cache is a deprecated no-op, and it has no DLA.
"""

from __future__ import annotations

from typing import Any

from dskd_export.engine.adapter import TensorRtAdapter
from dskd_export.engine.api import BackendName, BuildOptions
from dskd_export.engine.common import BuildSession, make_logger
from dskd_export.engine.loaded import LoadedContext, LoadedEngine
from dskd_export.engine.log import Log, join_messages
from dskd_export.engine.versions import RTX_TARGETS, format_targets
from dskd_export.errors import EnvironmentProblem, UsageError


class TensorRtRtx(TensorRtAdapter):
    """The adapter; a refitted engine stays refittable."""

    name: BackendName = "tensorrt-rtx"
    targets = RTX_TARGETS
    keeps_timing_cache = False
    max_opset = 24  # as TensorRT's parser of the same time

    def _refit_flags(self) -> tuple[Any, ...]:
        trt = self._trt
        return (trt.SerializationFlag.INCLUDE_REFIT,)

    def _check(self, options: BuildOptions) -> None:
        if options.dla_core is not None:
            raise EnvironmentProblem(
                "TensorRT-RTX supports no DLA.", "Remove --useDLACore, or build with --backend tensorrt."
            )
        if options.hardware != "none":
            raise EnvironmentProblem(
                "TensorRT-RTX has no hardware compatibility levels.",
                f"Name the GPUs instead: {format_targets(self.targets)}",
            )

    def _configure(self, session: BuildSession, options: BuildOptions) -> None:
        trt, config = self._trt, session.config
        config.num_compute_capabilities = len(options.targets) or 1
        for index, target in enumerate(options.targets):
            if not config.set_compute_capability(self._capability(target), index):
                raise UsageError(
                    f"TensorRT-RTX does not build for {target}.",
                    f"Choose another: {format_targets(self.targets)}",
                )
        if not options.targets and not config.set_compute_capability(trt.ComputeCapability.CURRENT, 0):
            raise EnvironmentProblem(
                "TensorRT-RTX finds no GPU to build for.",
                f"Name the GPU to build for: {format_targets(self.targets)}",
            )

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
        """Load an engine, once TensorRT-RTX has confirmed that it fits."""
        return RtxEngine(self._trt, plan, host_code)

    def merge_timing_caches(self, first: bytes, second: bytes) -> bytes:
        """Refuse: TensorRT-RTX measures nothing when it builds."""
        raise EnvironmentProblem("TensorRT-RTX has no timing cache.", "Remove --timing-cache.")


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
                f"TensorRT-RTX cannot load this engine: {', '.join(named) or join_messages(log.errors)}.",
                "Build it for this machine: dskd-compress build BUNDLE",
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
