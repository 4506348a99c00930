"""What a teacher's output depends on, in words and as the sha256 that names its folder.

Each output has a separate folder, so that methods that read a tap and methods that read logits alone share
the logits of a teacher.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dskd_compress.config import TeacherCacheSection
from dskd_compress.methods.base import Teacher, TeacherOutput
from dskd_compress.models import TeacherInput
from dskd_compress.pretrained import architecture
from dskd_compress.teachers.cache.rows import count_row_bytes
from dskd_export.files.json_text import digest

FORMAT = 1
"""Version of the folder's content. Folders of another version are not read."""

_PACKAGES = ("torch", "torchvision", "timm", "pillow")  # they make the images and compute the outputs


@dataclass(frozen=True)
class CachedOutput:
    """One output of a teacher, as it is stored.

    Attributes:
        shape, dtype: of one image.
    """

    name: str  # field of `TeacherOutput`
    shape: tuple[int, ...]
    dtype: str
    made_of: Mapping[str, Any]  # all that it depends on

    @property
    def key(self) -> str:
        """sha256, 64 hexadecimal digits."""
        return digest(self.made_of)

    @property
    def bytes_per_image(self) -> int:
        """Disk space of a row."""
        return count_row_bytes(self.shape, self.dtype)


@dataclass(frozen=True)
class ImageFacts:
    """Images of the rows."""

    data_sha256: str
    augmentation_sha256: str  # of everything that determines an image's augmentation, the seed included
    preprocessing: Mapping[str, Any]  # of the student; the teacher gets the same images
    images: int
    views: int

    @property
    def rows(self) -> int:
        """One for each view of each image."""
        return self.images * self.views

    def __str__(self) -> str:
        return f"{self.views} {'view' if self.views == 1 else 'views'} of {self.images:,} images"


def describe_outputs(
    teacher: Teacher,
    *,
    teacher_sha256: str,
    images: ImageFacts,
    section: TeacherCacheSection,
    precision: str,
    device: torch.device,
) -> list[CachedOutput]:
    """Describe the outputs that a method reads of a teacher, found with one grey image.

    Args:
        precision: of the training; autocast changes the outputs.
        device: of the training; only its type counts.
    """
    here = next(teacher.parameters()).device
    with torch.no_grad():
        output = teacher(torch.zeros(1, *images.preprocessing["input_size"], device=here))
    common: dict[str, Any] = {
        "format": FORMAT,
        "teacher": {
            "name": architecture(teacher.model),
            "weights_sha256": teacher_sha256,
            "structure_sha256": hashlib.sha256(str(teacher.model).encode()).hexdigest(),
        },
        "teacher_input": describe_adapter(teacher.adapt),
        "computed": {"precision": precision, "device": device.type, "versions": read_versions()},
        "images": {**dataclasses.asdict(images), "preprocessing": dict(images.preprocessing)},
    }
    found = []
    for name, value in list_output_tensors(output).items():
        dtype = "float32" if name == "logits_BK" else section.features
        kept = {"name": name, "shape": list(value.shape[1:]), "dtype": dtype, "tap": _describe_tap(teacher, name)}
        made_of = json.loads(json.dumps({**common, "output": kept}))
        found.append(CachedOutput(name, tuple(value.shape[1:]), dtype, made_of))
    return found


def list_output_tensors(output: TeacherOutput) -> dict[str, Tensor]:
    """List the tensors of a teacher's output by field."""
    values = {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    return {name: value for name, value in values.items() if value is not None}


def describe_adapter(adapter: TeacherInput) -> dict[str, Any]:
    """Describe how the student's images become the teacher's: x scale + shift, then a resize."""
    facts = {name: getattr(adapter, name).flatten().tolist() for name in ("scale", "shift")}
    return {**facts, "size": adapter.size}


def _describe_tap(teacher: Teacher, name: str) -> dict[str, Any] | None:
    if teacher.tap is None or name == "logits_BK":
        return None
    return {**teacher.tap.facts().model_dump(mode="json"), "prefix_tokens": teacher.tap.prefix_tokens}


def read_versions() -> dict[str, str]:
    """Read the versions of the packages that shape an output."""
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


def round_to_stored(value: Tensor, dtype: str) -> Tensor:
    """Round a tensor to its stored type; float16 has a relative error of at most 2^-11."""
    return value.to({"float16": torch.float16, "float32": torch.float32}[dtype])
