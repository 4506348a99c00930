"""Check that the packages of all stages are installed before the first one starts."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from dskd_compress.config import Recipe
from dskd_compress.names import BENCHMARK, DISTILL, VALIDATE
from dskd_compress.precisions import collect_settings, list_requested_precisions
from dskd_compress.run_folder import EXPORT, TUNE
from dskd_export.errors import EXTRA_OF, DskdError, MissingExtra, SeveralProblems, UsageError
from dskd_export.precision.build import is_installed, list_tool_modules

_PACKAGES = {
    "modelopt": "nvidia-modelopt",
    "onnxconverter_common": "onnxconverter-common",
    "sklearn": "scikit-learn",
}


def check_tools(recipe: Recipe, stages: Collection[str]) -> None:
    """Refuse stages whose packages are not installed, without importing them.

    Raises:
        MissingExtra: names the package, what needs it, and the command that installs it.
        UsageError: the recipe names a tool that cannot make one of its precisions.
        SeveralProblems: more than one of these.
    """
    problems = find_missing_tools(recipe, stages)
    if len(problems) > 1:
        raise SeveralProblems(f"This run cannot {' or '.join(stages)}", problems)
    for problem in problems:
        raise problem


def find_missing_tools(recipe: Recipe, stages: Collection[str]) -> list[DskdError]:
    """Find all packages that stages need and that are not installed: one error for each extra."""
    problems: list[DskdError] = []
    missing: dict[str, tuple[list[str], list[str]]] = {}  # extra -> packages, what needs them
    for module, need in _list_needs(recipe, stages, problems):
        if not is_installed(module):
            packages, needs = missing.setdefault(EXTRA_OF.get(module, "quant"), ([], []))
            packages.append(_PACKAGES.get(module, module))
            needs.append(need)
    for extra, lists in missing.items():
        packages, needs = (list(dict.fromkeys(names)) for names in lists)
        problems.append(MissingExtra(packages, extra, needed_for=needs))
    return problems


def _list_needs(recipe: Recipe, stages: Collection[str], problems: list[DskdError]) -> Iterator[tuple[str, str]]:
    """List modules with what needs them; a precision that no tool makes is added to the problems."""
    if DISTILL in stages and recipe.teacher.probe is not None:
        yield "sklearn", "teacher.probe"
    if EXPORT in stages:
        for module in ("onnx", "onnxscript", "onnxruntime", *(["onnxslim"] if recipe.export.slim else [])):
            yield module, EXPORT
        for precision in list_requested_precisions(recipe.export):
            try:
                modules = list_tool_modules(precision, collect_settings(recipe.export))
            except UsageError as error:
                problems.append(error)
                continue
            yield from ((module, precision) for module in modules)
    for stage in (VALIDATE, BENCHMARK):
        if stage in stages and _uses_onnxruntime(recipe, stage):
            yield "onnxruntime", stage
    if TUNE in stages and recipe.tune is not None:
        yield "modelopt", TUNE
        yield "requests", TUNE  # ModelOpt imports it and its metadata does not name it


def _uses_onnxruntime(recipe: Recipe, stage: str) -> bool:
    section = recipe.validation if stage == VALIDATE else recipe.benchmark
    return "onnxruntime" in section.runners
