"""What a timm architecture offers to a distillation."""

from __future__ import annotations

from pydantic import Field

from dskd_compress.config import DataSection, StudentSection
from dskd_compress.data import resolve_preprocessing
from dskd_compress.models import create_model, model_facts
from dskd_compress.taps import TapKind, find_head, find_tap, probe
from dskd_export.documents import Document, ModelFacts, TapFacts
from dskd_export.errors import TapError


class Inspection(Document):
    """Size, input and taps of an architecture."""

    model: ModelFacts
    taps: dict[str, TapFacts]
    heads: dict[str, str] = Field(description="tap -> how the model's own head goes on from it, as a teacher")
    refused: dict[str, str] = Field(description="tap -> why the model does not have it")


def inspect_architecture(name: str, input_size: int | None) -> Inspection:
    """Build an architecture with random weights and look at it.

    Raises:
        ModelError: timm does not know it.
        TapError: it is no image classifier.
    """
    model = create_model(StudentSection(name=name), num_classes=None, input_size=input_size)
    size = resolve_preprocessing(DataSection(input_size=input_size), model).input_size
    seen = probe(model, size)
    taps, heads, refused = {}, {}, {}
    kinds: tuple[TapKind, ...] = ("vector", "map")
    for kind in kinds:
        try:
            tap = find_tap(model, seen, kind)
        except TapError as error:
            refused[kind] = error.message
            continue
        taps[kind] = tap.facts()
        try:
            head = find_head(model, seen, tap)
            heads[kind] = "linear, closed form" if head.linear is not None else "its own head, by autograd"
        except TapError as error:
            heads[kind] = f"no: {error.message}"
    return Inspection(model=model_facts(model, size, "random"), taps=taps, heads=heads, refused=refused)
