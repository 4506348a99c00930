"""Two real optimisation steps of DSKD with an architecture as student and as teacher of other kinds of models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from dskd_compress.catalogue.survey import create_on_meta
from dskd_compress.config import DataSection, DskdMethod, StudentSection
from dskd_compress.data import resolve_preprocessing
from dskd_compress.methods import Pair, create_task
from dskd_compress.methods.base import StepContext
from dskd_compress.models import create_model, has_fixed_input, state_sha256
from dskd_compress.taps import find_tap, probe
from dskd_export.errors import DskdError

CLASSES = 10
PARTNERS = ("test_efficientnet", "test_vit")
CANDIDATES = (32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512)
PARTNER_SIZE = 64


def smallest_size(name: str, sizes: Sequence[int]) -> int:
    """Find the smallest input size that an architecture takes, by shapes alone; at most its default.

    Raises:
        DskdError: it takes none; the reason is that of its default size.
    """
    own = resolve_preprocessing(DataSection(), create_on_meta(name, None, CLASSES)).input_size[1]
    for size in [size for size in sorted(sizes) if size < own]:
        try:
            model = create_on_meta(name, size, CLASSES)
            seen = probe(model, (3, size, size))
            find_tap(model, seen, "vector")
        except DskdError:
            continue
        return size
    probe(create_on_meta(name, own, CLASSES), (3, own, own))
    return own


def build(name: str, size: int, seed: int) -> nn.Module:
    """Create a model with ten classes and random weights from a seed."""
    torch.manual_seed(seed)
    return create_model(StudentSection(name=name, pretrained=False), num_classes=CLASSES, input_size=size)


def two_steps(student: nn.Module, student_size: int, teacher: nn.Module, teacher_size: int) -> str:
    """Train a student for two steps; returns the tap that DSKD chose.

    Raises:
        DskdError: the pair is refused.
        AssertionError: it trained, and not as it should.
    """
    formats = [
        resolve_preprocessing(DataSection(input_size=size), model)
        for model, size in ((student, student_size), (teacher, teacher_size))
    ]
    pair = Pair(student, formats[0], teacher, formats[1])
    before = state_sha256(teacher), {name: value.clone() for name, value in student.named_parameters()}
    task = create_task(DskdMethod(), student, pair, label_smoothing=0.0, seed=0, device=torch.device("cpu"))
    task.train()
    optimizer = torch.optim.SGD([p for p in task.module.parameters() if p.requires_grad], lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    channels, height, width = formats[0].input_size
    for step in range(2):
        images_BCHW = torch.randn(2, channels, height, width, generator=generator)
        result = task(images_BCHW, torch.tensor([step, 7]), StepContext(progress=0.5 + step / 4))
        optimizer.zero_grad()
        result["loss"].backward()
        nn.utils.clip_grad_norm_(task.module.parameters(), 1.0)
        optimizer.step()
        assert all(bool(torch.isfinite(term)) for term in result["terms"].values()), result["terms"]
        assert float(result["terms"]["diffusion"].detach()) > 0
    assert state_sha256(teacher) == before[0], "the teacher changed"
    moved = [name for name, value in student.named_parameters() if not torch.equal(value, before[1][name])]
    assert len(moved) >= len(before[1]) / 2, f"only {len(moved)} of {len(before[1])} parameters moved"
    assert all(bool(torch.isfinite(value).all()) for value in student.parameters())
    return task.taps["teacher"].layout


def train_with_partners(name: str, sizes: Sequence[int] = CANDIDATES) -> dict[str, Any]:
    """Measure one line of the table."""
    line: dict[str, Any] = {"name": name, "student": {}, "teacher": {}}
    try:
        line["size"] = size = smallest_size(name, sizes)
        for partner in PARTNERS:
            # A fixed input is resized to on the device: the two see images of different sizes.
            model, other_size = build(name, size, 0), PARTNER_SIZE if partner == "test_vit" else size
            line["student"][partner] = two_steps(model, size, build(partner, other_size, 1), other_size)
            model, other_size = build(name, size, 0), PARTNER_SIZE if has_fixed_input(model) else size
            line["teacher"][partner] = two_steps(build(partner, other_size, 1), other_size, model, size)
        line["passed"] = True
    except DskdError as error:
        line["refused"] = f"{type(error).__name__}: {error.message}"
    return line
