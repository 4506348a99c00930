"""Find the number type that a provider computes a model in, from ONNX Runtime's own profile.

A provider without a kernel for a type silently converts to another: the CPU computes fp16 models in fp32, CUDA
treats the Q/DQ of an int8 model as rounding and computes in float. The results are then those of another
precision than the device will use.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner
from dskd_export.runtime.profile_events import Event, arguments_of, is_node, read_events
from dskd_export.runtime.runner import Array

# Names in a profile of the types of a precision, on the operands of a convolution or a matrix product.
_TYPES = {
    "fp32": {"float"},
    "fp16": {"float16"},
    "bf16": {"bfloat16"},
    "int8": {"int8", "uint8"},
    "fp8": {"float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz"},
}
_NAMES = {name: precision for precision, names in _TYPES.items() for name in names}


@dataclass(frozen=True)
class ComputePrecision:
    """Whether a provider computes in the precision of the model.

    Attributes:
        is_native: most convolutions and matrix products run in it.
        reason: what was counted.
        other: the precision that it computes in instead; empty: its own.
    """

    is_native: bool
    reason: str
    other: str = ""


def find_compute_precision(
    model: Path | bytes, precision: str, provider: str, feeds: Mapping[str, Array]
) -> ComputePrecision:
    """Run a model once under ONNX Runtime's profiler and count the types of its kernels.

    Args:
        model: the ONNX file, or its content.
        precision: what the model claims to be.
        provider: `cpu`, `cuda` or `tensorrt`.
        feeds: one input; one image is enough.

    Raises:
        EnvironmentProblem: the provider is not available here.
        ModelError: ONNX Runtime cannot run the model, or its profile cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        runner = OnnxRuntimeRunner(model, provider=provider, precision=precision, profile=Path(folder) / "profile")
        with runner:
            runner.infer(feeds)
            profile = runner.end_profile()
        events = read_events(profile)
    return judge_kernels(list_kernel_types(events), precision, provider)


def list_kernel_types(events: Iterable[Event]) -> list[str]:
    """List the precision that each convolution and matrix product ran in, from the events of a profile."""
    return [found for event in events if is_node(event) and (found := find_kernel_type(event)) is not None]


def find_kernel_type(event: Event) -> str | None:
    """Find the precision that a convolution or matrix product ran in; None for any other node.

    The type of a kernel is that of its weight, its second operand that is more than a number.
    """
    arguments = arguments_of(event)
    if not any(word in str(arguments.get("op_name", "")) for word in ("Conv", "Gemm", "MatMul")):
        return None
    listed = arguments.get("input_type_shape")
    types = [
        pair
        for operand in (listed if isinstance(listed, list) else ())
        if isinstance(operand, Mapping)
        for pair in operand.items()
    ]
    operands = [str(name) for name, shape in types if isinstance(shape, list) and len(shape) > 1]
    if not operands:
        return None
    weight = operands[min(1, len(operands) - 1)]
    return _NAMES.get(weight, weight)


def judge_kernels(kernels: list[str], precision: str, provider: str) -> ComputePrecision:
    """Judge whether a model mostly computes in its precision.

    Args:
        kernels: precision of each convolution and matrix product.
        precision: what the model claims to be.
        provider: for the reason.
    """
    if not kernels:
        return ComputePrecision(
            False,
            f"computed in an unknown type on {provider}: the profile lists no convolution or matrix product",
            "unknown",
        )
    own = kernels.count(precision)
    total = len(kernels)
    counted = f"{own} of {total} convolutions and matrix products run in {precision}"
    if 2 * own >= total:
        return ComputePrecision(True, counted)
    others = [name for name in kernels if name != precision]
    other = max(sorted(set(others)), key=others.count)
    return ComputePrecision(False, f"computed in {other} on {provider}: {counted}", other)
