"""Check that the packages of all stages are installed before the first one starts."""

from __future__ import annotations

from collections.abc import Collection

from dskd_compress.config import Recipe
from dskd_compress.precisions import collect_settings, list_requested_precisions
from dskd_compress.run_folder import EXPORT, TUNE
from dskd_export.errors import EXTRA_OF, MissingExtra
from dskd_export.precision.build import check_precision_tool, is_installed


def check_tools(recipe: Recipe, stages: Collection[str]) -> None:
    """Refuse stages whose packages are not installed, without importing them.

    Raises:
        MissingExtra: names the package, what needs it, and the command that installs it.
        UsageError: the recipe names a tool that cannot make one of its precisions.
    """
    if EXPORT in stages:
        for module in ("onnx", "onnxscript", "onnxruntime", *(["onnxslim"] if recipe.export.slim else [])):
            if not is_installed(module):
                raise MissingExtra(module, EXTRA_OF[module])
        for precision in list_requested_precisions(recipe.export):
            check_precision_tool(precision, collect_settings(recipe.export))
    if TUNE in stages and recipe.tune is not None:
        for module, package in (("modelopt", "nvidia-modelopt"), ("requests", "requests")):
            if not is_installed(module):
                raise MissingExtra(package, EXTRA_OF[module], needed_for="tune")
