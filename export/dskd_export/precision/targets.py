"""Which precisions a device computes in, and which of them its runtime reads from ONNX.

Sources: "Hardware and Precision" of NVIDIA's support matrices (TensorRT-RTX 1.x for 7.5 to 12.0, TensorRT
10.10 for DRIVE OS for Thor); compute capabilities: https://developer.nvidia.com/cuda-gpus, of which CUDA 13
numbers Thor's 10.1 anew, 11.0; opsets that the parser reads: onnx-tensorrt, docs/operators.md, 10.0 (to 20)
and 10.15 (to 24). bf16 convolutions need opset 22, which TensorRT 10.3 of JetPack 6 does not read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from dskd_export.documents.base import DeviceFacts
from dskd_export.documents.precision import Precision
from dskd_export.documents.runner_name import RunnerName

Target = Literal["cpu", "jetson-orin", "jetson-thor", "turing", "ampere", "ada", "hopper", "blackwell"]


@dataclass(frozen=True)
class TargetFacts:
    """What a kind of device can do.

    Attributes:
        precisions: that it computes in, the smallest file first.
        rest: type of what a quantised model does not quantise. TensorRT takes types as they stand, so
            fp32 there would run in fp32; on a CPU fp16 is computed through fp32 and only costs time.
        device: for people.
        compute_capabilities: of its GPUs, empty without one; 10.1 is what CUDA 12 called 11.0.
        board: word of its name in the device tree; empty: it is no board.
    """

    precisions: tuple[Precision, ...]
    rest: Literal["fp32", "fp16"]
    device: str
    compute_capabilities: tuple[str, ...] = ()
    board: str = ""


_INT8: tuple[Precision, ...] = ("int8", "fp16", "fp32")
_FP8: tuple[Precision, ...] = ("int8", "fp8", "fp16", "bf16", "fp32")

TARGETS: dict[Target, TargetFacts] = {
    "cpu": TargetFacts(("int8", "fp32"), "fp32", "ONNX Runtime on a CPU"),
    "jetson-orin": TargetFacts(
        _INT8, "fp16", "Jetson Orin, compute capability 8.7, TensorRT 10.3", ("8.7",), "orin"
    ),
    "jetson-thor": TargetFacts(
        ("int8", "fp8", "fp16", "fp32"), "fp16", "Jetson Thor, TensorRT 10.13", ("10.1", "11.0"), "thor"
    ),
    "turing": TargetFacts(_INT8, "fp16", "compute capability 7.5", ("7.5",)),
    "ampere": TargetFacts(
        ("int8", "fp16", "bf16", "fp32"), "fp16", "compute capability 8.0 and 8.6", ("8.0", "8.6")
    ),
    "ada": TargetFacts(_FP8, "fp16", "compute capability 8.9", ("8.9",)),
    "hopper": TargetFacts(_FP8, "fp16", "compute capability 9.0", ("9.0",)),
    "blackwell": TargetFacts(
        _FP8,
        "fp16",
        "compute capability 10.0 and 12.0",
        ("10.0", "10.3", "12.0", "12.1"),
    ),
}


def is_measured_on(target: str | None, device: DeviceFacts, runner: RunnerName) -> bool:
    """Whether what a runner measured on a device was measured on the target.

    - `cpu`: everything that any CPU computed, and TensorRT: an engine is built on the device that is to run it.
    - a Jetson: everything on the board, which its device tree names, or its GPU's compute capability.
    - another GPU: what a GPU of one of its compute capabilities computed.

    Args:
        target: what the models are for, `export.target`; None: of an older bundle, which is for any device.
        device: that measured.
        runner: for example `onnxruntime:cpu:int8`.
    """
    if target is None:
        return True
    if target not in get_args(Target):  # of a newer version: nothing is known of it
        return False
    facts = TARGETS[target]  # type: ignore[index]  # one of them
    if not facts.compute_capabilities:
        return runner.provider == "cpu" or runner.kind == "tensorrt"
    if device.compute_capability is not None:
        same = device.compute_capability in facts.compute_capabilities
    else:
        names = f"{device.cpu} {device.gpu or ''}".lower()
        same = bool(facts.board) and re.search(rf"\b{facts.board}\b", names) is not None
    return same and (bool(facts.board) or runner.provider != "cpu")


def name_measured_device(target: str | None, device: DeviceFacts, runner: RunnerName) -> str:
    """Name a device that something was measured on: the target where that is one kind of device, else itself."""
    if target is not None and target != "cpu":
        return target
    return device.cpu if runner.provider == "cpu" else device.gpu or device.cpu


def find_target(text: str) -> Target | None:
    """Find the target that a compute capability or a device's name means: `8.7`, `sm_87`, `AGX Orin`."""
    words = text.strip().lower()
    number = re.fullmatch(r"(?:sm|cc|compute)?[ _-]?(\d{1,2})[.]?(\d)[af]?", words)
    if number is not None:
        capability = f"{number[1]}.{number[2]}"
        return next((name for name, facts in TARGETS.items() if capability in facts.compute_capabilities), None)
    known = set(re.findall(r"[a-z]+", words))
    return next((name for name in TARGETS if name.rpartition("-")[2] in known), None)
