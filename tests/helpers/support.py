"""Small real models and formats for tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dskd_compress.data import Preprocessing
from dskd_compress.methods import Pair
from dskd_compress.timm_import import import_timm
from dskd_export.documents.validation import Parity
from dskd_export.runtime.batches import logits_of
from dskd_export.runtime.runner import Runner
from dskd_export.validation.parity import compare_outputs

CLASSES = 10


def make_format(size: int, mean: float = 0.5, std: float = 0.25) -> Preprocessing:
    """Preprocessing of a square input."""
    return Preprocessing((3, size, size), (mean,) * 3, (std,) * 3, "bicubic", 1.0, "center")


def make_model(name: str, seed: int = 0, **kwargs: object) -> nn.Module:
    """A timm model with ten classes, the same for the same seed."""
    torch.manual_seed(seed)
    model: nn.Module = import_timm().create_model(name, num_classes=CLASSES, **kwargs)
    return model


def make_pair(student: str, teacher: str, size: int = 64) -> Pair:
    """A student and a teacher that take the same images."""
    return Pair(make_model(student), make_format(size), make_model(teacher, seed=1), make_format(size))


def compare_runners(reference: Runner, candidate: Runner, inputs_BCHW: Any, *, batch: int, **names: str) -> Parity:
    """Compare two runners on the same images, in calls of exactly `batch`; the last may be partial."""
    logits = [logits_of(runner, inputs_BCHW, batch=batch, **names) for runner in (reference, candidate)]
    return compare_outputs(*logits, reference_name=reference.name, candidate_name=candidate.name, batch=batch)
