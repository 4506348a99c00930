"""Check which package makes a precision, before any work."""

from __future__ import annotations

import importlib.util
from typing import Literal

from dskd_export.documents.precision import QUANTIZED, Precision
from dskd_export.errors import EXTRA_OF, MissingExtra, UsageError
from dskd_export.precision import modelopt
from dskd_export.precision.build import Settings

Tool = Literal["modelopt", "onnxconverter_common", "onnxruntime"]


def tool_of(precision: Precision, settings: Settings) -> Tool:
    """Name the package that makes a precision here, installed or not.

    Raises:
        UsageError: the recipe names a tool that cannot make it.
    """
    only_modelopt = precision in ("bf16", "fp8") or (precision in QUANTIZED and settings.rest == "fp16")
    if only_modelopt and settings.producer == "onnxruntime" and precision != "int8":
        raise UsageError(
            f"{precision} is made by ModelOpt only, and export.quantize.producer is onnxruntime.",
            f"Set export.quantize.producer=auto, or leave {precision} out of export.precisions.",
        )
    if (
        only_modelopt
        or settings.producer == "modelopt"
        or (settings.producer == "auto" and modelopt.is_installed())
    ):
        return "modelopt"
    return "onnxruntime" if precision in QUANTIZED else "onnxconverter_common"


def check_precision_tool(precision: Precision, settings: Settings) -> None:
    """Refuse a precision whose package is not installed; imports nothing.

    Raises:
        MissingExtra: names the package and the precision that needs it.
        UsageError: as `tool_of`.
    """
    tool = tool_of(precision, settings)
    if tool == "modelopt" and not modelopt.is_installed():
        raise MissingExtra("nvidia-modelopt", "quant", needed_for=precision)
    if not is_installed(tool):
        raise MissingExtra(tool.replace("_", "-"), EXTRA_OF[tool], needed_for=precision)


def is_installed(module: str) -> bool:
    """Whether a module can be found; imports nothing."""
    return importlib.util.find_spec(module) is not None
