"""TensorRT 10.3 to 10.16: JetPack 6.1 to 7.1, and servers.

Strong typing is a flag of the network here. Everything that names a precision is deprecated in this
generation, removed in the next, and never used.
"""

from __future__ import annotations

from typing import Any

from dskd_export.engine.adapter import TensorRtAdapter
from dskd_export.engine.api import BuildOptions
from dskd_export.engine.common import BuildSession
from dskd_export.errors import EnvironmentProblem

# Version -> newest operator set that its parser reads: onnx-tensorrt, docs/operators.md of 10.0 and 10.15;
# 10.6 came with ONNX 1.17 (docs/Changelog.md).
_OPSETS = (((10, 15), 24), ((10, 6), 22), ((10, 0), 20))


class TensorRt10(TensorRtAdapter):
    """The adapter; a refitted engine cannot be refitted again, as not all of 10 have the flag for it."""

    def __init__(self, trt: Any) -> None:
        super().__init__(trt)
        major, minor = (int(part) for part in self.version.split(".")[:2])
        self.max_opset = next(opset for since, opset in _OPSETS if (major, minor) >= since)

    def _network_flags(self) -> int:
        trt = self._trt
        return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)

    def _configure(self, session: BuildSession, options: BuildOptions) -> None:
        trt, config = self._trt, session.config
        if options.hardware == "ampere-plus":
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        elif options.hardware == "same-compute-capability":
            if not hasattr(trt.HardwareCompatibilityLevel, "SAME_COMPUTE_CAPABILITY"):
                raise EnvironmentProblem(
                    f"TensorRT {self.version} lacks the hardware compatibility level sameComputeCapability.",
                    "Use --hardwareCompatibilityLevel ampere+, or a newer TensorRT.",
                )
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
