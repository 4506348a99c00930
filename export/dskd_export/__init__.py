"""Export, validate, benchmark and report a compressed classifier; runs without torch on the device.

The names in `__all__` are the public interface. Each is imported when it is first used, so that importing this
package loads neither numpy nor ONNX Runtime.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dskd_export.benchmark.timing import add_disturbances, measure_latency
    from dskd_export.bundle import open_bundle
    from dskd_export.runtime.batches import logits_of
    from dskd_export.runtime.images import open_image
    from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner
    from dskd_export.runtime.preprocess import preprocess_batch
    from dskd_export.runtime.tensorrt import TensorRtRunner
    from dskd_export.telemetry.monitor import Monitor
    from dskd_export.validation.parity import compare_outputs

__version__ = "0.1.0"

__all__ = [
    "Monitor",
    "OnnxRuntimeRunner",
    "TensorRtRunner",
    "__version__",
    "add_disturbances",
    "compare_outputs",
    "logits_of",
    "measure_latency",
    "open_bundle",
    "open_image",
    "preprocess_batch",
]

_MODULE_OF = {
    "Monitor": "dskd_export.telemetry.monitor",
    "OnnxRuntimeRunner": "dskd_export.runtime.onnxruntime",
    "TensorRtRunner": "dskd_export.runtime.tensorrt",
    "compare_outputs": "dskd_export.validation.parity",
    "logits_of": "dskd_export.runtime.batches",
    "measure_latency": "dskd_export.benchmark.timing",
    "open_bundle": "dskd_export.bundle",
    "open_image": "dskd_export.runtime.images",
    "preprocess_batch": "dskd_export.runtime.preprocess",
    "add_disturbances": "dskd_export.benchmark.timing",
}

# Libraries that report to their makers read these when they are imported, whoever imports them: so they are set
# before anything else, here and in child processes. A choice that the user made stays.
NO_TELEMETRY = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
}
for _name, _value in NO_TELEMETRY.items():
    os.environ.setdefault(_name, _value)

if not TYPE_CHECKING:  # a type checker would take any name for one that exists

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
