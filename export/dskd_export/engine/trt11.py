"""TensorRT 11: JetPack 7.2.2 and later, and servers.

Networks are always strongly typed. Differences from 10: docs.nvidia.com/deeplearning/tensorrt/latest,
api/migration/tensorrt-10x-to-11x-python-api-reference.html.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dskd_export.engine import common
from dskd_export.engine.api import BuildOptions, Failure, Plan, Refusal
from dskd_export.engine.loaded import LoadedEngine, refit
from dskd_export.errors import EnvironmentProblem


class TensorRt11:
    """The adapter."""

    name = "tensorrt"
    targets: tuple[str, ...] = ()
    keeps_timing_cache = True
    max_opset = 24  # onnx-tensorrt 11.2, docs/operators.md; later parsers read more

    def __init__(self, trt: Any) -> None:
        self._trt = trt

    @property
    def version(self) -> str:
        """TensorRT's version."""
        return str(self._trt.__version__)

    def refused(self, model: bytes, path: Path) -> tuple[Refusal, ...]:
        """Nodes that the parser does not take."""
        return common.refused(self._trt, common.open_bench(self._trt, 0), model, path)

    def build(self, model: bytes, path: Path, options: BuildOptions, cache: bytes | None) -> Plan | Failure:
        """Build an engine."""
        trt = self._trt
        if options.refit == "new-weights" and self.version.startswith("11.3."):
            # Release notes of 11.3.0, known issues: such an engine may drop the bias of a matrix product.
            raise EnvironmentProblem(
                f"TensorRT {self.version} loses biases in engines that take new weights.",
                "Use --strip identical, another TensorRT, or build an engine for each training.",
            )
        bench = common.open_bench(trt, 0)
        config, parser = bench.config, bench.parser
        if options.dla_core is not None:
            parser.set_flag(trt.OnnxParserFlag.ADJUST_FOR_DLA)
        if failure := common.parse(bench, model, path) or common.check_profiles(bench, options):
            return failure
        flags = common.configure(trt, bench, options)
        if options.hardware == "ampere-plus":
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        elif options.hardware == "same-compute-capability":
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
        """Put weights into an engine; it stays refittable."""
        trt = self._trt
        flags = (trt.SerializationFlag.INCLUDE_REFIT,)
        return refit(trt, plan, model, path, host_code=host_code, flags=flags)

    def merge_timing_caches(self, first: bytes, second: bytes) -> bytes:
        """One timing cache of two."""
        return common.merge(common.open_bench(self._trt, 0), first, second)
