"""Export an architecture from torch to ONNX at its own size, and compare the outputs."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import onnx
import torch
from pair_steps import smallest_size
from torch import nn

from dskd_compress.catalogue.survey import create_on_meta
from dskd_compress.config import DataSection, ExportSection, StudentSection
from dskd_compress.data import resolve_preprocessing
from dskd_compress.models import create_model
from dskd_compress.stages.export import make_spec
from dskd_compress.weights import WeightsInfo
from dskd_export.errors import DskdError
from dskd_export.onnx_from_torch import onnx_from_torch
from dskd_export.onnx_from_torch.passes import NOTHING_TO_DO

SIZES = (224, 256, 384)
"""Largest own size that is kept; above it, the smallest size that the model takes is used."""
FAINT = 1e-3
"""Weights with a smaller standard deviation are scaled up to that of the others."""
CLASSES = tuple(f"class{number}" for number in range(10))


def export_with_parity(name: str) -> dict[str, Any]:
    """Measure one line of the table: random weights, ten classes, a free batch, and a size that a CPU can run.

    `onnx_from_torch` refuses what is further than 1e-4 of the output's scale from torch at batch 1, 3 or 8.
    """
    torch.manual_seed(0)
    line: dict[str, Any] = {"name": name}
    section = StudentSection(name=name, pretrained=False)
    began = time.perf_counter()
    try:
        size = resolve_preprocessing(DataSection(), create_on_meta(name, None, len(CLASSES))).input_size[1]
        if size > max(SIZES):
            size = smallest_size(name, SIZES)
        model = create_model(section, num_classes=len(CLASSES), input_size=size).eval()
        stir(model)
        preprocessing = resolve_preprocessing(DataSection(input_size=size), model)
        line["size"] = list(preprocessing.input_size[1:])
        info = WeightsInfo.of(section, CLASSES, preprocessing)
        exported = onnx_from_torch(model, make_spec(info, ExportSection(), ""))
    except DskdError as error:
        return line | {"refused": f"{type(error).__name__}: {error.message}"}
    proto = exported.model.proto
    assert exported.model.weights is None, "no representative is larger than one file"
    graph = onnx.load_from_string(proto).graph
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    assert batch.dim_param == "batch"
    return line | {
        "parameters": sum(value.numel() for value in model.parameters()),
        "nodes": len(graph.node),
        "max_abs_relative": exported.max_abs_relative,
        "applied": [step.name for step in exported.passes if step.applied],
        "left_out": {
            step.name: step.reason
            for step in exported.passes
            if not step.applied and step.reason and step.reason != NOTHING_TO_DO
        },
        "seconds": round(time.perf_counter() - began, 1),
    }


def stir(model: nn.Module) -> None:
    """Scale up weights initialised as zeros, ones or nearly so: inactive heads and branches prove nothing."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if not value.is_floating_point() or value.numel() < 2:
                continue
            if bool((value == value.flatten()[0]).all()):
                value += 0.1 * torch.rand(value.shape, generator=generator)
            elif value.std() < FAINT:
                value *= 0.02 / value.std()


def export_page(lines: Sequence[dict[str, Any]], versions: dict[str, str], command: str) -> str:
    """Format the table: one row per model class."""
    passed = [line for line in lines if "max_abs_relative" in line]
    worst = max(line["max_abs_relative"] for line in passed)
    page = [
        "# One architecture of each model class of timm as ONNX",
        "",
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}. Made by:",
        "",
        "```sh",
        *command.split("; "),
        "```",
        "",
        f"{len(passed)} of {len(lines)} model classes export with a free batch, with random weights and ten "
        "classes, by torch's dynamo exporter. The difference is the largest of the logits over the largest logit, "
        "ONNX Runtime on the CPU against torch, at batch 1, 3 and 8; 1e-4 is allowed, the "
        f"worst is {worst:.1e}. Seconds are those of one torch thread, all checks included, on a shared machine.",
        "Weights that start as zeros, ones or next to nothing are given a value first. A model of more than "
        f"{max(SIZES)} pixels is exported at the smallest of {', '.join(map(str, SIZES))} that it takes.",
        "",
        "| class | architecture | input | parameters, M | nodes | difference | steps left out | s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for line in passed:
        left_out = "; ".join(f"{name}: {_cell(reason)}" for name, reason in line["left_out"].items())
        size, million = "x".join(map(str, line["size"])), line["parameters"] / 1e6
        page.append(
            f"| {line['model_class']} | {line['name']} | {size} | {million:.1f} | {line['nodes']} "
            f"| {line['max_abs_relative']:.1e} | {left_out} | {line['seconds']:.0f} |"
        )
    page += ["", "| not exported | architecture | why |", "|---|---|---|"]
    for line in lines:
        if why := line.get("refused") or line.get("unexplained"):
            page.append(f"| {line['model_class']} | {line['name']} | {_cell(why)} |")
    return "\n".join(page) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def export_json(lines: Sequence[dict[str, Any]], versions: dict[str, str], command: str) -> str:
    """Format all figures as JSON."""
    return json.dumps({"versions": versions, "command": command, "classes": lines}, indent=1) + "\n"
