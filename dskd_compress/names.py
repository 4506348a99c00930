"""Names that help texts list and the core checks against. Needs nothing: `--help` answers at once."""

from __future__ import annotations

TRAIN, DISTILL, TUNE, EXPORT = "train", "distill", "tune", "export"
VALIDATE, BENCHMARK, REPORT = "validate", "benchmark", "report"

STAGE_NAMES = (TRAIN, DISTILL, TUNE, EXPORT, VALIDATE, BENCHMARK, REPORT)
"""In the order of the pipeline."""

METHOD_NAMES = ("none", "kd", "dkd", "dist", "fitnet", "diffkd", "lshfm", "dskd")
TARGET_NAMES = ("cpu", "jetson-orin", "jetson-thor", "turing", "ampere", "ada", "hopper", "blackwell")
PRECISION_NAMES = ("fp32", "fp16", "bf16", "int8", "fp8")
AMP_NAMES = ("fp32", "bf16", "fp16")

WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pth.tar", ".pt", ".bin", ".ckpt")


def join_words(names: tuple[str, ...]) -> str:
    """Join names for a sentence: `a, b or c`."""
    return f"{', '.join(names[:-1])} or {names[-1]}"
