"""Every library that the packages import is declared, also one that ModelOpt imports without declaring it."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from readme_blocks import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

PACKAGES = {"dskd_compress": ROOT / "dskd_compress", "dskd_export": ROOT / "export/dskd_export"}
# Libraries whose own dependencies are imported as well: each is named by the first one's metadata.
COMES_WITH = {"markupsafe": "jinja2", "pydantic-core": "pydantic"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement_name(requirement: str) -> str:
    return normal(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])


def declared() -> dict[str, set[str]]:
    """Extra (`` for the base) -> names of its distributions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    return {extra: {requirement_name(one) for one in needed} for extra, needed in groups.items()}


def imported(path: Path) -> Iterator[str]:
    """Top-level modules that a file imports, by statement or by `require("name", "extra")`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require":
            first = node.args[0]
            if isinstance(first, ast.Constant):
                yield str(first.value).split(".")[0]


@cache
def distributions() -> dict[str, set[str]]:
    """Module -> distributions that bring it, of all that is installed."""
    found = importlib.metadata.packages_distributions()
    return {module: {normal(name) for name in names} for module, names in found.items()}


def test_everything_that_is_imported_is_declared() -> None:
    names = set().union(*declared().values())
    undeclared: dict[str, str] = {}
    seen = set()
    for folder in PACKAGES.values():
        for path in folder.rglob("*.py"):
            for module in imported(path):
                if module in sys.stdlib_module_names or module in PACKAGES:
                    continue
                brought_by = distributions().get(module, {normal(module)})
                seen |= brought_by
                known = names | {name for name, parent in COMES_WITH.items() if parent in names}
                if not brought_by & known:
                    undeclared[module] = str(path.relative_to(ROOT))
    assert undeclared == {}
    assert {"numpy", "torch", "onnxruntime", "nvidia-modelopt", *COMES_WITH} <= seen


@pytest.mark.parametrize(("library", "parent"), COMES_WITH.items())
def test_what_comes_with_a_library_is_in_its_metadata(library: str, parent: str) -> None:
    assert library in {requirement_name(line) for line in importlib.metadata.requires(parent) or []}


def test_the_extra_quant_brings_what_modelopt_imports() -> None:
    """Its metadata names for ONNX what excludes our versions of onnx, and nowhere what modelopt.torch imports."""
    requirements = importlib.metadata.requires("nvidia-modelopt") or []
    of_onnx = {requirement_name(line) for line in requirements if 'extra == "onnx"' in line.replace("'", '"')}
    heavy = {name for name in of_onnx if name.startswith(("onnxruntime-", "cupy"))}  # for GPUs
    extras = declared()
    assert of_onnx - heavy - {"ml-dtypes"} <= extras["quant"] | extras["onnx"]

    (site,) = {Path(str(importlib.metadata.distribution("nvidia-modelopt").locate_file("modelopt")))}
    # What is imported on the way to modelopt.torch.quantization: the package modules, and what they name.
    utils = set(imported(site / "torch/utils/dataset_utils.py"))
    assert "requests" in utils, "ModelOpt imports it no more: take it out of the extra"
    assert "requests" not in {requirement_name(line) for line in requirements if "extra ==" not in line}
    assert "requests" in extras["quant"]
