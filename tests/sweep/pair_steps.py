"""Two real optimisation steps of DSKD, an architecture as student and as teacher of partners of other kinds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from dskd_compress.config import DataSection, DskdMethod, StudentSection
from dskd_compress.data import resolve_preprocessing
from dskd_compress.methods import Pair, create_task
from dskd_compress.models import create_model, has_fixed_input, state_sha256
from dskd_compress.taps import probe
from dskd_export.errors import DskdError

CLASSES = 10
PARTNERS = ("test_efficientnet", "test_vit")
CANDIDATES = (32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512)
PARTNER_SIZE = 64


def build(name: str, sizes: Sequence[int], seed: int) -> tuple[nn.Module, int]:
    """A model with ten classes at the smallest of some sizes that it takes, and that size.

    Raises:
        DskdError: it takes none, for the reason of the last one tried.
    """
    failure: DskdError | None = None
    for size in sizes:
        torch.manual_seed(seed)
        try:
            model = create_model(StudentSection(name=name), num_classes=CLASSES, input_size=size)
            probe(model, (3, size, size))
        except DskdError as error:
            failure = error
            continue
        return model, size
    assert failure is not None
    raise failure


def two_steps(student: nn.Module, student_size: int, teacher: nn.Module, teacher_size: int) -> str:
    """Train a student for two steps; the tap that DSKD chose.

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
        task.progress = 0.5 + step / 4
        result = task(images_BCHW, torch.tensor([step, 7]))
        optimizer.zero_grad()
        result["loss"].backward()
        nn.utils.clip_grad_norm_(task.module.parameters(), 1.0)
        optimizer.step()
        assert all(bool(torch.isfinite(term)) for term in result["terms"].values()), result["terms"]
        assert float(result["terms"]["diffusion"]) > 0
    assert state_sha256(teacher) == before[0], "the teacher changed"
    moved = [name for name, value in student.named_parameters() if not torch.equal(value, before[1][name])]
    assert len(moved) >= len(before[1]) / 2, f"only {len(moved)} of {len(before[1])} parameters moved"
    assert all(bool(torch.isfinite(value).all()) for value in student.parameters())
    return task.taps["teacher"].layout


def train_with_partners(name: str, sizes: Sequence[int] = CANDIDATES) -> dict[str, Any]:
    """One line of the table."""
    line: dict[str, Any] = {"name": name, "student": {}, "teacher": {}}
    try:
        line["size"] = size = build(name, sizes, 0)[1]
        for partner in PARTNERS:
            # A fixed input is resized to on the device: the two see images of different sizes.
            model, _ = build(name, [size], 0)
            other, other_size = build(partner, [PARTNER_SIZE if partner == "test_vit" else size], 1)
            line["student"][partner] = two_steps(model, size, other, other_size)
            model, _ = build(name, [size], 0)
            other, other_size = build(partner, [PARTNER_SIZE if has_fixed_input(model) else size], 1)
            line["teacher"][partner] = two_steps(other, other_size, model, size)
        line["passed"] = True
    except DskdError as error:
        line["refused"] = f"{type(error).__name__}: {error.message}"
    return line
