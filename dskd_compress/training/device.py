"""The device that trains, and its number formats."""

from __future__ import annotations

import contextlib
import resource
import sys

import torch

from dskd_compress.config import TrainSection
from dskd_compress.launch import ProcessRank
from dskd_compress.shortages import make_compiler_error
from dskd_export.errors import EnvironmentProblem, UsageError
from dskd_export.telemetry.host import usable_cores


def resolve_device(requested: str, process: ProcessRank | None = None) -> torch.device:
    """Resolve `auto`, `cpu`, `cuda` or `cuda:N` to a device of this machine.

    Args:
        process: this one of several, each of which takes the GPU of its local rank.

    Raises:
        UsageError: not a device's name, or one GPU for several processes.
        EnvironmentProblem: the device is not there. Only `auto` ever falls back to the CPU.
    """
    if process is not None and process.world_size > 1:
        if requested.startswith("cuda:"):
            raise UsageError(
                f"train.device is {requested}, but {process.world_size} processes cannot share one GPU.",
                "Use train.device cuda: each process takes its own.",
            )
        if requested == "cuda" or (requested == "auto" and torch.cuda.is_available()):
            requested = f"cuda:{process.local_rank}"
    if requested == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(requested)
    except RuntimeError as error:
        raise UsageError(f"train.device: '{requested}' is no device.", "Use auto, cpu, cuda or cuda:1.") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise EnvironmentProblem(
                f"train.device is {requested}, but torch {torch.__version__} finds no CUDA device.",
                "Use --device cpu, or see: dskd-compress doctor",
            )
        index = device.index or 0
        if index >= torch.cuda.device_count():
            raise EnvironmentProblem(
                f"train.device is {requested}, but there are {torch.cuda.device_count()} CUDA devices.",
                f"Use cuda:0 to cuda:{torch.cuda.device_count() - 1}; with torchrun, that many --nproc-per-node.",
            )
        return torch.device("cuda", index)
    if device.type != "cpu":
        raise UsageError(f"train.device: '{requested}' is not supported.", "Use auto, cpu, cuda or cuda:1.")
    return device


def configure(section: TrainSection, device: torch.device) -> None:
    """Set threads and matmul precision for this process, and try what compiles.

    Raises:
        EnvironmentProblem: `train.compile` on a machine that cannot compile.
    """
    torch.set_num_threads(section.threads or min(torch.get_num_threads(), usable_cores()))
    if section.compile:
        _try_compiler(device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True


def _try_compiler(device: torch.device) -> None:
    """Compile something small: a missing compiler shows before the first epoch and not within it."""
    try:
        torch.compile(torch.nn.Softplus())(torch.ones(64, device=device))
    except Exception as error:  # what is missing, and who says so, depends on device and version
        raise make_compiler_error(error) from error


def autocast(section: TrainSection, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The autocast context of `train.precision`.

    Raises:
        EnvironmentProblem: fp16 on a CPU, or bf16 on a GPU that has none.
    """
    if section.precision == "fp32":
        return contextlib.nullcontext()
    if section.precision == "fp16" and device.type == "cpu":
        raise EnvironmentProblem("train.precision fp16 needs a CUDA device.", "Use bf16 or fp32 on the CPU.")
    if section.precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise EnvironmentProblem("This GPU has no bf16.", "Use train.precision fp16.")
    dtype = torch.bfloat16 if section.precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype=dtype)


def peak_memory_mb(device: torch.device) -> float | None:
    """Largest memory so far, 1 MB = 10^6 bytes: allocated on the GPU, or resident for a CPU process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes * 1024 / 1e6 if sys.platform == "linux" else None
