"""What comes with a checkpoint about its images and classes: metadata, a `config.json`, arguments of a training.

None of it is trusted: bounded, checked as JSON or plain values, and left out with a reason where it is not usable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open

from dskd_compress.config import TeacherSection
from dskd_compress.data import Preprocessing
from dskd_export.errors import DataError
from dskd_export.files.bounded import read_bounded
from dskd_export.files.json_text import InvalidJson, adapt_json, first_fault, one_line, validate_json
from dskd_export.settings import Positive
from dskd_export.spec import CropMode, Interpolation

_MAX_BYTES = 8 * 2**20  # timm's own with the names of 21,843 classes has one
_TRAIN_ARGUMENTS = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")

_LABELS = TypeAdapter(list[str])

Side = Annotated[int, Field(ge=8, le=8192)]


class PretrainedConfig(BaseModel):
    """The part of timm's `pretrained_cfg` that an image's way to the model depends on."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    input_size: tuple[int, Side, Side] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[Positive, Positive, Positive] | None = None
    interpolation: Interpolation | None = None
    crop_pct: Annotated[float, Field(gt=0, le=4)] | None = None
    crop_mode: CropMode | None = None


class HubConfig(BaseModel):
    """A `config.json` as timm writes it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    architecture: str = Field(max_length=200)
    pretrained_cfg: PretrainedConfig | None = None
    # With gaps between the classes it is a mapping, which gives no order.
    label_names: list[str] | dict[str, str] | None = None


@dataclass(frozen=True)
class StatedInput:
    """What a checkpoint's own words are on its images and classes.

    Attributes:
        source: whose words, for messages; empty: nothing was found.
        classes: names in the order of the outputs; empty: unknown.
        left_out: what was found and is not used, and why.
    """

    config: PretrainedConfig = field(default_factory=PretrainedConfig)
    source: str = ""
    classes: tuple[str, ...] = ()
    left_out: list[str] = field(default_factory=list)

    @property
    def side(self) -> int | None:
        """Side of the image in pixels; None: unknown, or not square."""
        size = self.config.input_size
        return size[1] if size is not None and size[1] == size[2] else None

    def apply(self, format: Preprocessing) -> Preprocessing:
        """Replace what is stated in a preprocessing."""
        stated = self.config.model_dump(exclude_none=True)
        return replace(format, **stated)


def find_stated_input(section: TeacherSection, path: Path, arguments: Mapping[str, Any]) -> StatedInput:
    """Find what comes with a checkpoint, the closest to its weights first.

    Args:
        arguments: of the training program, from the checkpoint.
    """
    architecture = section.name.rpartition(":")[2].split(".")[0]
    left_out: list[str] = []
    for found in (_read_metadata(path), _read_config(path), _read_arguments(arguments)):
        if found is None:
            continue
        source, config = found
        if isinstance(config, str):
            left_out.append(f"{source} is not used: {config}.")
        elif config.architecture not in ("", architecture):
            left_out.append(f"{source} is not used: it is of {one_line(config.architecture)}.")
        else:
            names = config.label_names
            classes = tuple(names) if isinstance(names, list) and len(set(names)) == len(names) else ()
            return StatedInput(config.pretrained_cfg or PretrainedConfig(), source, classes, left_out)
    return StatedInput(left_out=left_out)


def _read_metadata(path: Path) -> tuple[str, HubConfig | str] | None:
    """Read timm's configuration from the metadata of a safetensors file: `pretrained_cfg`, as JSON."""
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError):
        return None  # no safetensors; loading it reports what is wrong
    text = metadata.get("pretrained_cfg")
    if text is None:
        return None
    source = f"pretrained_cfg in {path.name}"
    if len(text) > _MAX_BYTES:
        return source, f"it has more than {_MAX_BYTES:,} characters"
    try:
        config = validate_json(text.encode(), PretrainedConfig)
        names = metadata.get("label_names")
        labels = None if names is None else adapt_json(names[:_MAX_BYTES].encode(), _LABELS)
    except InvalidJson as error:
        return source, str(error)
    return source, HubConfig(
        architecture=metadata.get("architecture", "")[:200], pretrained_cfg=config, label_names=labels
    )


def _read_config(path: Path) -> tuple[str, HubConfig | str] | None:
    """Read timm's `config.json` next to a checkpoint; that of another library has no architecture."""
    file = path.parent / "config.json"
    if not file.is_file():
        return None
    source = f"{file.name} next to {path.name}"
    try:
        data = read_bounded(file, _MAX_BYTES)
        config = validate_json(data, HubConfig)
        if config.pretrained_cfg is None:  # before timm 0.9 all keys were on one level
            config = config.model_copy(update={"pretrained_cfg": validate_json(data, PretrainedConfig)})
    except InvalidJson as error:
        return source, str(error)
    except DataError as error:
        return source, error.message.rstrip(".")
    except OSError as error:
        return source, str(error.strerror)
    return source, config


def _read_arguments(arguments: Mapping[str, Any]) -> tuple[str, HubConfig | str] | None:
    """Read the arguments that timm's `train.py` keeps in a checkpoint; what was not given is None there."""
    given = {key: arguments[key] for key in _TRAIN_ARGUMENTS if arguments.get(key)}
    side = arguments.get("img_size")
    if isinstance(side, int) and "input_size" not in given:
        given["input_size"] = (3, side, side)
    if not given:
        return None
    source = "the arguments of its training"
    try:
        return source, HubConfig(
            architecture=str(arguments.get("model", "")).split(".")[0][:200],
            pretrained_cfg=PretrainedConfig.model_validate(given),
        )
    except ValidationError as error:
        return source, first_fault(error)
