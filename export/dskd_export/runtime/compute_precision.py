"""Find the number type that a provider computes a model in, from ONNX Runtime's own profile.

A provider without a kernel for a type silently converts to another: the CPU computes fp16 models in fp32, CUDA
treats the Q/DQ of an int8 model as rounding and computes in float. The results are then those of another
precision than the device will use.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner
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
        ModelError: ONNX Runtime cannot run the model.
    """
    with tempfile.TemporaryDirectory() as folder:
        runner = OnnxRuntimeRunner(model, provider=provider, precision=precision, profile=Path(folder) / "profile")
        with runner:
            runner.infer(feeds)
            profile = runner.end_profile()
        events = json.loads(profile.read_text(encoding="utf-8"))
    return judge_kernels(list_kernel_types(events), precision, provider)


def list_kernel_types(events: Iterable[Mapping[str, Any]]) -> list[str]:
    """List the precision that each convolution and matrix product ran in, from the events of a profile.

    The type of a kernel is that of its weight, its second operand that is more than a number.
    """
    found = []
    for event in events:
        arguments = event.get("args", {})
        if event.get("cat") != "Node" or not str(event.get("name", "")).endswith("_kernel_time"):
            continue
        if not any(word in arguments.get("op_name", "") for word in ("Conv", "Gemm", "MatMul")):
            continue
        types = [
            (name, shape) for operand in arguments.get("input_type_shape", []) for name, shape in operand.items()
        ]
        operands = [name for name, shape in types if len(shape) > 1]
        if operands:
            weight = operands[min(1, len(operands) - 1)]
            found.append(_NAMES.get(weight, weight))
    return found


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
