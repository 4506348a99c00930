"""Which precisions a device computes in, and which of them its runtime reads from ONNX.

Sources: "Hardware and Precision" of NVIDIA's support matrices (TensorRT-RTX 1.x for 7.5 to 12.0, TensorRT
10.10 for DRIVE OS for Thor); opsets that the parser reads: onnx-tensorrt, docs/operators.md, 10.0 (to 20)
and 10.15 (to 24). bf16 convolutions need opset 22, which TensorRT 10.3 of JetPack 6 does not read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from dskd_export.documents.precision import Precision

Target = Literal["cpu", "jetson-orin", "jetson-thor", "turing", "ampere", "ada", "hopper", "blackwell"]


@dataclass(frozen=True)
class TargetFacts:
    """What a kind of device can do.

    Attributes:
        precisions: that it computes in, the smallest file first.
        rest: type of what a quantised model does not quantise. TensorRT takes types as they stand, so
            fp32 there would run in fp32; on a CPU fp16 is computed through fp32 and only costs time.
        device: for people.
        compute_capabilities: of its GPUs; 10.1 is what CUDA 12 called 11.0.
    """

    precisions: tuple[Precision, ...]
    rest: Literal["fp32", "fp16"]
    device: str
    compute_capabilities: tuple[str, ...] = ()


_INT8: tuple[Precision, ...] = ("int8", "fp16", "fp32")
_FP8: tuple[Precision, ...] = ("int8", "fp8", "fp16", "bf16", "fp32")

TARGETS: dict[Target, TargetFacts] = {
    "cpu": TargetFacts(("int8", "fp32"), "fp32", "ONNX Runtime on a CPU"),
    "jetson-orin": TargetFacts(_INT8, "fp16", "Jetson Orin, compute capability 8.7, TensorRT 10.3", ("8.7",)),
    "jetson-thor": TargetFacts(
        ("int8", "fp8", "fp16", "fp32"), "fp16", "Jetson Thor, TensorRT 10.13", ("11.0", "10.1")
    ),
    "turing": TargetFacts(_INT8, "fp16", "compute capability 7.5", ("7.5",)),
    "ampere": TargetFacts(
        ("int8", "fp16", "bf16", "fp32"), "fp16", "compute capability 8.0 and 8.6", ("8.0", "8.6")
    ),
    "ada": TargetFacts(_FP8, "fp16", "compute capability 8.9", ("8.9",)),
    "hopper": TargetFacts(_FP8, "fp16", "compute capability 9.0", ("9.0",)),
    "blackwell": TargetFacts(_FP8, "fp16", "compute capability 10.0 and 12.0", ("10.0", "12.0")),
}


def find_target(text: str) -> Target | None:
    """Find the target that a compute capability or a device's name means: `8.7`, `sm_87`, `AGX Orin`."""
    words = text.strip().lower()
    number = re.fullmatch(r"(?:sm|cc|compute)?[ _-]?(\d{1,2})[.]?(\d)[af]?", words)
    if number is not None:
        capability = f"{number[1]}.{number[2]}"
        return next((name for name, facts in TARGETS.items() if capability in facts.compute_capabilities), None)
    known = set(re.findall(r"[a-z]+", words))
    return next((name for name in TARGETS if name.rpartition("-")[2] in known), None)
