"""What an architecture offers and costs, found from its shapes alone: nothing is downloaded or computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dskd_compress.config import DataSection, StudentSection
from dskd_compress.data import resolve_preprocessing
from dskd_compress.models import count_operations, count_parameters, create_model, has_fixed_input
from dskd_compress.taps import Probe, TapKind, find_tap, head_paths, probe
from dskd_export.documents.base import Document
from dskd_export.documents.training import TapFacts
from dskd_export.errors import DskdError, ModelError

Kind = Literal["cnn", "vit"]

# Counting the largest models takes seconds each, and they are no students.
LARGEST_COUNTED = 100_000_000


class Survey(Document):
    """An architecture as a student or a teacher."""

    name: str = Field(description="timm architecture")
    model_class: str | None = Field(description="Python class; None where it could not be created")
    kind: Kind | None = Field(default=None, description="vit: has attention or gives tokens; cnn: neither")
    parameters: int | None = None
    macs: int | None = Field(default=None, description="of one image of input_size; None where it was not counted")
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
    """Create an architecture on the meta device, with a classifier of so many classes, and look at its shapes.

    A model that has no taps is described with the reason; it raises nothing for it.

    Args:
        count_up_to: parameters of the largest model whose multiply-accumulates are counted; None: of any.
    """
    model_class = None
    try:
        model = shapes_of(name, input_size, classes)
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
        heads[kind] = [head.path for head in head_paths(model, seen, tap)]
    return Survey(
        name=name,
        model_class=model_class,
        kind=kind_of(model, seen, operations),
        parameters=parameters,
        macs=None if operations is None else sum(operations.values()),
        input_size=size,
        fixed_input=has_fixed_input(model),
        taps=taps,
        prefix_tokens=prefix,
        heads=heads,
        refused=refused,
    )


def shapes_of(name: str, input_size: int | None, classes: int | None) -> nn.Module:
    """An architecture on the meta device, in eval mode: shapes without values, in no time and no memory.

    Raises:
        ModelError: timm does not know it, or cannot create it there.
    """
    with torch.device("meta"):
        model = create_model(StudentSection(name=name), num_classes=classes, input_size=input_size).eval()
    if any(parameter.device.type != "meta" for parameter in model.parameters()):
        raise ModelError(f"{name} cannot be created without its weights.", None)
    return model


def kind_of(model: nn.Module, seen: Probe, operations: Mapping[str, int] | None) -> Kind:
    """vit: has attention or gives tokens; cnn: neither.

    Attention is a product of features with features, whatever the layer is called.

    Args:
        operations: of `count_operations`; None leaves it to the names of the layers.
    """
    tokens = not (isinstance(seen.features, Tensor) and seen.features.ndim == 4)
    names = {type(module).__name__.lower() for module in model.modules()}
    attention = any("attention" in name for name in names) or "bmm" in (operations or {})
    return "vit" if tokens or attention else "cnn"
