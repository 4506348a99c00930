"""Trained weights on disk: safetensors with the metadata to build the model and preprocess its images."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from dskd_compress.checkpoints import load_weights
from dskd_compress.config import ModelSection
from dskd_compress.data import DataSets, Preprocessing
from dskd_compress.models import create_model
from dskd_export.documents.base import Document
from dskd_export.errors import CheckpointError, DataError
from dskd_export.files.atomic import write_atomic
from dskd_export.files.json_text import InvalidJson, validate_json
from dskd_export.spec import ExifMode

METADATA_KEY = "dskd_compress"


class WeightsInfo(Document):
    """Metadata of a weights file."""

    name: str = Field(description="timm architecture")
    kwargs: dict[str, Any]
    classes: tuple[str, ...]
    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    crop_mode: str
    exif: ExifMode = "ignore"

    @model_serializer(mode="wrap")
    def _leave_out_exif(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # As in ModelSpec: weights of a training that ignores EXIF keep their bytes.
        fields: dict[str, Any] = serialize(self)
        if self.exif == "ignore":
            fields.pop("exif", None)
        return fields

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of its images."""
        return Preprocessing(
            self.input_size, self.mean, self.std, self.interpolation, self.crop_pct, self.crop_mode
        )

    @classmethod
    def of(
        cls,
        section: ModelSection,
        classes: tuple[str, ...],
        preprocessing: Preprocessing,
        exif: ExifMode = "ignore",
    ) -> WeightsInfo:
        """Describe a model before its training."""
        return cls(
            name=section.name,
            kwargs=section.kwargs,
            classes=classes,
            **dataclasses.asdict(preprocessing),
            exif=exif,
        )


def save_weights(path: Path, state: Mapping[str, Tensor], info: WeightsInfo) -> None:
    """Write a state dict atomically, with exactly the keys of the plain timm model."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    write_atomic(path, save(tensors, metadata={METADATA_KEY: info.model_dump_json()}))


def read_info(path: Path) -> WeightsInfo:
    """Read the metadata of a weights file.

    Raises:
        CheckpointError: another tool wrote it, or it is damaged.
    """
    hint = "Train it again with: dskd-compress distill"
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
        return validate_json(metadata[METADATA_KEY].encode(), WeightsInfo)
    except KeyError as error:
        raise CheckpointError(f"{path} was not written by dskd-compress.", hint) from error
    except (SafetensorError, InvalidJson, OSError) as error:
        raise CheckpointError(f"{path} is damaged.", hint) from error


def find_info(path: Path) -> WeightsInfo | None:
    """Find the metadata of a weights file; None: another tool wrote it.

    Raises:
        CheckpointError: dskd-compress wrote it, and the metadata is damaged.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            ours = METADATA_KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return None  # no safetensors; loading it reports what is wrong
    return read_info(path) if ours else None


def load_trained(path: Path) -> tuple[nn.Module, WeightsInfo]:
    """Load the plain timm model of a weights file, strictly, in eval mode on the CPU.

    Raises:
        CheckpointError: as `read_info`, or the weights do not fit.
        ModelError: the installed timm cannot build the model.
    """
    info = read_info(path)
    section = ModelSection(name=info.name, pretrained=False, kwargs=info.kwargs)
    with torch.random.fork_rng(devices=[]):  # building draws initial weights, which are overwritten
        model = create_model(section, num_classes=len(info.classes), input_size=info.input_size[1])
    load_weights(model, path)
    return model.eval(), info


def check_classes(classes: tuple[str, ...], sets: DataSets, path: Path, stage: str) -> None:
    """Refuse weights of other classes than the data.

    Raises:
        DataError: the classes differ.
    """
    if classes != tuple(sets.classes):
        in_run = (path.parent / "recipe.yaml").is_file()
        run = shlex.quote(str(path.parent)) if in_run else "RECIPE"
        again = f"dskd-compress {stage} {run} --data {shlex.quote(sets.source)}"
        raise DataError(
            f"{path} was trained on other classes than {sets.source} has.",
            f"Give the images of that training: --set data.source=FOLDER; or train again: {again}",
        )
