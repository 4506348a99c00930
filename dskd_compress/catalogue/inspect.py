"""Inspect a timm architecture as a student and as a teacher."""

from __future__ import annotations

from pydantic import Field

from dskd_compress.catalogue.survey import Kind, classify_model
from dskd_compress.config import DataSection, StudentSection
from dskd_compress.data import resolve_preprocessing
from dskd_compress.models import count_operations, create_model, has_fixed_input, model_facts
from dskd_compress.taps import TapKind, find_tap, find_teacher_tap, probe
from dskd_compress.timm_import import import_timm
from dskd_export.documents.base import Document
from dskd_export.documents.training import ModelFacts, TapFacts
from dskd_export.errors import TapError


class Inspection(Document):
    """Size, input and taps of an architecture."""

    model: ModelFacts
    model_class: str
    kind: Kind = Field(description="vit: has attention or token features; cnn: neither")
    own_classes: int = Field(description="classes of its pretrained weights; 0: no classifier")
    pretrained: bool = Field(description="whether timm has weights for it")
    fixed_input: bool = Field(description="takes images of one size only")
    mean: tuple[float, ...] = Field(description="of pixels in [0, 1], RGB")
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    taps: dict[str, TapFacts]
    heads: dict[str, str] = Field(description="tap -> how the model's own head reads it, as a teacher")
    refused: dict[str, str] = Field(description="tap -> why the model has none")
    as_student: str = Field(description="yes, or the reason against it")
    as_teacher: str = Field(description="yes with the taps, or what to set")


def inspect_architecture(name: str, input_size: int | None) -> Inspection:
    """Inspect an architecture with random weights; one without a classifier gets 1000 classes.

    Raises:
        ModelError: timm has no such architecture.
        TapError: it is no image classifier.
    """
    config = import_timm().models.get_pretrained_cfg(name, allow_unregistered=True)
    own = int(getattr(config, "num_classes", 1000) or 0)
    section = StudentSection(name=name, pretrained=False)
    model = create_model(section, num_classes=None if own else 1000, input_size=input_size)
    format = resolve_preprocessing(DataSection(input_size=input_size), model)
    seen = probe(model, format.input_size)
    taps: dict[str, TapFacts] = {}
    heads: dict[str, str] = {}
    refused: dict[str, str] = {}
    kinds: tuple[TapKind, ...] = ("vector", "map")
    for kind in kinds:
        try:
            taps[kind] = find_tap(model, seen, kind).facts()
        except TapError as error:
            refused[kind] = error.message
            continue
        try:
            tap, head = find_teacher_tap(model, seen, kind)
            way = "linear, closed form" if head.linear is not None else "its own head, by autograd"
            heads[kind] = way if tap.layout != "prefix" else f"{way}, from its {tap.prefix_tokens} prefix tokens"
        except TapError as error:
            heads[kind] = f"no: {error.message}"
    return Inspection(
        model=model_facts(model, format.input_size, "random"),
        model_class=type(model).__name__,
        kind=classify_model(model, seen, count_operations(model, format.input_size)),
        own_classes=own,
        pretrained=bool(import_timm().is_model_pretrained(name.split(".")[0])),
        fixed_input=has_fixed_input(model),
        mean=format.mean,
        std=format.std,
        interpolation=format.interpolation,
        crop_pct=format.crop_pct,
        taps=taps,
        heads=heads,
        refused=refused,
        as_student="yes",
        as_teacher=_judge_as_teacher(heads, own),
    )


def _judge_as_teacher(heads: dict[str, str], own_classes: int) -> str:
    guiding = [kind for kind, way in heads.items() if not way.startswith("no")]
    if not own_classes:
        return "with a classifier of the data's classes: teacher.fit: probe, head or all"
    if not guiding:
        return f"with teacher.fit: probe; its own head reads no tap ({heads['vector'].removeprefix('no: ')})"
    return f"yes: {' and '.join(guiding)}"
