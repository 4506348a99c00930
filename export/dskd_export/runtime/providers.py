"""ONNX Runtime's execution providers that can be chosen, and their options.

https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html and
https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Provider:
    """An execution provider.

    Attributes:
        name: `cpu`, `cuda` or `tensorrt`.
        ort_name: ONNX Runtime's own name.
        library: its file in ONNX Runtime's folder; None: built in.
        options: of a session.
    """

    name: str
    ort_name: str
    library: str | None
    options: Mapping[str, str]

    @property
    def needs_gpu(self) -> bool:
        """Whether it runs on a CUDA device."""
        return self.library is not None


# TF32 would round what is compared as fp32 to ten bits of mantissa.
CPU = Provider("cpu", "CPUExecutionProvider", None, {})
CUDA = Provider(
    "cuda", "CUDAExecutionProvider", "libonnxruntime_providers_cuda.so", {"device_id": "0", "use_tf32": "0"}
)
# Without a precision's own flag the network is strongly typed: it runs in the ONNX types. Nothing is read from or
# left on the disk, so no earlier session affects a number.
TENSORRT = Provider(
    "tensorrt",
    "TensorrtExecutionProvider",
    "libonnxruntime_providers_tensorrt.so",
    {
        "device_id": "0",
        **{
            f"trt_{name}": "0"
            for name in (
                *("engine_cache_enable", "timing_cache_enable", "cuda_graph_enable", "dla_enable"),
                *("engine_hw_compatible", "weight_stripped_engine_enable", "dump_ep_context_model"),
                "layer_norm_fp32_fallback",
            )
        },
    },
)
PROVIDERS: Mapping[str, Provider] = {provider.name: provider for provider in (CPU, CUDA, TENSORRT)}


def make_options(
    provider: Provider,
    shapes: Mapping[str, tuple[Shape, Shape, Shape]] | None = None,
    allow_cpu: Sequence[str] = (),
) -> dict[str, str]:
    """Make the options of a session.

    Args:
        provider: one of `PROVIDERS`.
        shapes: input -> smallest, usual and largest shape of TensorRT's engine; None: it builds one for the
            first shape, and another for each larger one.
        allow_cpu: operators that run on the CPU.
    """
    options = dict(provider.options)
    if provider is not TENSORRT:
        return options
    for index, which in enumerate(("min", "opt", "max")):
        if shapes:
            profiles = (f"{name}:{'x'.join(map(str, triple[index]))}" for name, triple in shapes.items())
            options[f"trt_profile_{which}_shapes"] = ",".join(profiles)
    if allow_cpu:
        options["trt_op_types_to_exclude"] = ",".join(allow_cpu)
    return options
