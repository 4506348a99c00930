"""Every attribute of TensorRT that the adapters touch, read off their syntax trees.

The adapters hold TensorRT's objects under fixed names: `trt` is the module, `builder` a Builder, and so on.
Whatever is asked of such a name, or of an attribute of that name (`bench.builder`, `self._engine`), has to
be in the list of its class.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
ENGINE = ROOT / "export/dskd_export/engine"
API = ROOT / "tests/dskd_export/engine/tensorrt_api.json"
MODULE = "<module>"

CLASSES = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "error": "ParserError",
    "profile": "IOptimizationProfile",
    "timing_cache": "ITimingCache",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
    "refitter": "Refitter",
    "parser_refitter": "OnnxParserRefitter",
    "serialization": "ISerializationConfig",
    "memory": "IHostMemory",
    "layer": "ILayer",
    "tensor": "ITensor",
}

# Adapter -> the generations that it serves; common.py and loaded.py serve all.
SERVES = {
    "trt10.py": ("tensorrt_bindings 10.13.3.9", "tensorrt_bindings 10.16.1.11"),
    "trt11.py": ("tensorrt_bindings 11.4.0.106",),
    "rtx.py": ("tensorrt_rtx 1.7.1.116",),
}
SERVES["common.py"] = SERVES["loaded.py"] = tuple(name for names in SERVES.values() for name in names)


class Touch(NamedTuple):
    """`owner.attribute`, as an adapter writes it in a line."""

    owner: str
    attribute: str
    line: int


def load_api() -> dict[str, dict[str, Any]]:
    """Public names of four real bindings of TensorRT."""
    api: dict[str, dict[str, Any]] = json.loads(API.read_text(encoding="utf-8"))
    return api


def touches(source: str) -> Iterator[Touch]:
    """All that a file asks of TensorRT."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Attribute):
            continue
        name = _name(node.value)
        if name == "trt":
            yield Touch(MODULE, node.attr, node.lineno)
        elif name in CLASSES:
            yield Touch(CLASSES[name], node.attr, node.lineno)
        elif isinstance(node.value, ast.Attribute) and _name(node.value.value) == "trt":
            yield Touch(node.value.attr, node.attr, node.lineno)


def _name(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr.removeprefix("_")
    return None


def missing(source: str, api: dict[str, Any]) -> list[Touch]:
    """What a file asks for that a generation does not have."""
    found = []
    for touch in touches(source):
        if touch.owner == MODULE:
            known = api["names"]
        elif touch.owner in api["enums"]:
            known = api["enums"][touch.owner]
        else:
            known = [*api["classes"].get(touch.owner, []), "__init__"]
        if touch.attribute not in known:
            found.append(touch)
    return found
