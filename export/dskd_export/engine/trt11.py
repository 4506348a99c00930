"""TensorRT 11: JetPack 7.2.2 and later, and servers.

Networks are always strongly typed. Differences from 10: docs.nvidia.com/deeplearning/tensorrt/latest,
api/migration/tensorrt-10x-to-11x-python-api-reference.html.
"""

from __future__ import annotations

from typing import Any

from dskd_export.engine.adapter import TensorRtAdapter
from dskd_export.engine.api import BuildOptions
from dskd_export.engine.common import BuildSession
from dskd_export.errors import EnvironmentProblem


class TensorRt11(TensorRtAdapter):
    """The adapter; a refitted engine stays refittable."""

    max_opset = 24  # onnx-tensorrt 11.2, docs/operators.md; later parsers read more

    def _refit_flags(self) -> tuple[Any, ...]:
        trt = self._trt
        return (trt.SerializationFlag.INCLUDE_REFIT,)

    def _check(self, options: BuildOptions) -> None:
        if options.refit == "new-weights" and self.version.startswith("11.3."):
            # Release notes of 11.3.0, known issues: such an engine may drop the bias of a matrix product.
            raise EnvironmentProblem(
                f"TensorRT {self.version} drops biases from engines that accept new weights.",
                "Use --stripWeights identical, another TensorRT, or build an engine for each training.",
            )

    def _prepare_parser(self, session: BuildSession, options: BuildOptions) -> None:
        trt, parser = self._trt, session.parser
        if options.dla_core is not None:
            parser.set_flag(trt.OnnxParserFlag.ADJUST_FOR_DLA)

    def _configure(self, session: BuildSession, options: BuildOptions) -> None:
        trt, config = self._trt, session.config
        if options.hardware == "ampere-plus":
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        elif options.hardware == "same-compute-capability":
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
