"""Survey an architecture by its shapes alone: nothing is downloaded or computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dskd_compress.config import DataSection, StudentSection
from dskd_compress.data import resolve_preprocessing
from dskd_compress.models import count_operations, count_parameters, create_model, has_fixed_input
from dskd_compress.taps import Probe, TapKind, find_head_paths, find_tap, probe
from dskd_export.documents.base import Document
from dskd_export.documents.training import TapFacts
from dskd_export.errors import DskdError, ModelError

Kind = Literal["cnn", "vit"]

# Counting a larger model takes seconds, and it is no student.
LARGEST_COUNTED = 100_000_000


class Survey(Document):
    """An architecture as student and teacher."""

    name: str = Field(description="timm architecture")
    model_class: str | None = Field(description="Python class; None: it could not be created")
    kind: Kind | None = Field(default=None, description="vit: has attention or token features; cnn: neither")
    parameters: int | None = None
    macs: int | None = Field(default=None, description="of one image of input_size; None: not counted")
    input_size: tuple[int, int, int] | None = None
    fixed_input: bool | None = Field(default=None, description="takes images of one size only")
    taps: dict[str, TapFacts] = Field(default_factory=dict)
    prefix_tokens: int = 0
    heads: dict[str, list[str]] = Field(
        default_factory=dict, description="tap -> ways to logits of the right shape, simplest first"
    )
    refused: dict[str, str] = Field(default_factory=dict, description="tap, or 'model' -> why there is none")


def survey_architecture(
    name: str, *, input_size: int | None = None, classes: int = 1000, count_up_to: int | None = LARGEST_COUNTED
) -> Survey:
    """Survey an architecture on the meta device; a model without taps is listed with the reason.

    Args:
        classes: of its classifier.
        count_up_to: most parameters of a model whose multiply-accumulates are counted; None: any number.
    """
    model_class = None
    try:
        model = create_on_meta(name, input_size, classes)
        model_class = type(model).__name__
        size = resolve_preprocessing(DataSection(input_size=input_size), model).input_size
        seen = probe(model, size)
    except DskdError as error:
        return Survey(name=name, model_class=model_class, refused={"model": error.message})
    parameters = count_parameters(model)
    operations = count_operations(model, size) if parameters <= (count_up_to or parameters) else None
    taps, heads, refused, prefix = {}, {}, {}, 0
    kinds: tuple[TapKind, ...] = ("vector", "map")
    for kind in kinds:
        try:
            tap = find_tap(model, seen, kind)
        except DskdError as error:
            refused[kind] = error.message
            continue
        taps[kind] = tap.facts()
        prefix = max(prefix, tap.prefix_tokens)
        heads[kind] = [head.path for head in find_head_paths(model, seen, tap)]
    return Survey(
        name=name,
        model_class=model_class,
        kind=classify_model(model, seen, operations),
        parameters=parameters,
        macs=None if operations is None else sum(operations.values()),
        input_size=size,
        fixed_input=has_fixed_input(model),
        taps=taps,
        prefix_tokens=prefix,
        heads=heads,
        refused=refused,
    )


def create_on_meta(name: str, input_size: int | None, classes: int | None) -> nn.Module:
    """Create an architecture on the meta device, in eval mode: shapes without values.

    Raises:
        ModelError: timm has no such architecture, or cannot create it there.
    """
    with torch.device("meta"):
        model = create_model(
            StudentSection(name=name, pretrained=False), num_classes=classes, input_size=input_size
        ).eval()
    if any(parameter.device.type != "meta" for parameter in model.parameters()):
        raise ModelError(f"{name} cannot be created without its weights.", None)
    return model


def classify_model(model: nn.Module, seen: Probe, operations: Mapping[str, int] | None) -> Kind:
    """Classify a model: vit has attention or token features, cnn neither.

    A batched matrix product counts as attention, whatever the name of the layer.

    Args:
        operations: of `count_operations`; None: only the names of the layers count.
    """
    tokens = not (isinstance(seen.features, Tensor) and seen.features.ndim == 4)
    names = {type(module).__name__.lower() for module in model.modules()}
    attention = any("attention" in name for name in names) or "bmm" in (operations or {})
    return "vit" if tokens or attention else "cnn"
