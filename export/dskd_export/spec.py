"""ModelSpec: input, preprocessing and classes of a model, stored with the model.

Written as `spec.json` into the bundle and as metadata into the ONNX file, so that neither can
be used with the wrong preprocessing.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from dskd_export.errors import BundleError, DataError
from dskd_export.files.bounded import read_bounded
from dskd_export.files.json_text import InvalidJson, validate_json

METADATA_KEY = "dskd_spec"
SCHEMA_VERSION = 1
MAX_SPEC = 4 << 20
"""Bytes that are read of a spec."""
_EXPORT_AGAIN = "Export the student again: dskd-compress export"
PROBABILITIES = "probabilities"  # output of a model whose graph ends in a softmax

# All that Pillow and timm's evaluation transform know.
Interpolation = Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]
CropMode = Literal["center", "squash", "border"]
ExifMode = Literal["ignore", "apply"]


def describe_exif(mode: ExifMode) -> str:
    """Describe in words what becomes of the orientation in EXIF."""
    return "applied: photos are turned upright" if mode == "apply" else "ignored: pixels as stored"


class ModelSpec(BaseModel):
    """Input, preprocessing and classes of an exported classifier."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1] = 1
    architecture: str = Field(description="timm name of the student")
    input_name: str = "input"
    input_dtype: Literal["float32", "uint8"] = Field(
        "float32", description="float32: normalised before; uint8: RGB pixels, the graph normalises them itself"
    )
    input_layout: Literal["NCHW", "NHWC"] = "NCHW"
    output_name: Literal["logits", "probabilities"] = Field("logits", description="what the model gives")
    channels: Literal[3] = 3
    height: int = Field(ge=1, description="pixels")
    width: int = Field(ge=1, description="pixels")
    dynamic_size: bool = Field(False, description="the graph takes other heights and widths as well")
    mean: tuple[float, float, float] = Field(description="of pixels scaled to [0, 1], RGB")
    std: tuple[float, float, float] = Field(description="of pixels scaled to [0, 1], RGB")
    interpolation: Interpolation
    crop_pct: float = Field(gt=0, description="crop size / resized size; above 1 the resized image is padded")
    crop_mode: CropMode = "center"
    exif: ExifMode = Field(
        "ignore", description="ignore: pixels as stored; apply: turned upright by the orientation in EXIF first"
    )
    classes: tuple[str, ...] = Field(min_length=1, description="in the order of the logits")
    class_descriptions: tuple[str, ...] | None = Field(
        None, description="the classes in words, in the same order, where their names are WordNet's synsets"
    )
    opset: int
    student_sha256: str = Field(description="sha256 of student.safetensors")

    @model_validator(mode="after")
    def _positive_std(self) -> ModelSpec:
        if min(self.std) <= 0:
            raise ValueError("std must be positive")
        return self

    @model_validator(mode="after")
    def _crop_of_an_image(self) -> ModelSpec:
        if min(self.height, self.width) < self.crop_pct:
            raise ValueError(
                "crop_pct must not be larger than height and width: it would shrink every image to nothing"
            )
        return self

    @model_validator(mode="after")
    def _each_class_once(self) -> ModelSpec:
        for name, count in Counter(self.classes).items():
            if count > 1:
                raise ValueError(f"{count} classes are named {name[:60]!r}")
        return self

    @model_validator(mode="after")
    def _a_description_each(self) -> ModelSpec:
        if self.class_descriptions is not None and len(self.class_descriptions) != len(self.classes):
            raise ValueError(f"{len(self.class_descriptions)} descriptions for {len(self.classes)} classes")
        return self

    @model_serializer(mode="wrap")
    def _leave_out_exif(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Specs that ignore EXIF keep their bytes. One that applies it is refused by readers that do not know it.
        fields: dict[str, Any] = serialize(self)
        if self.exif == "ignore":
            fields.pop("exif", None)
        return fields

    def input_shape(self, batch: int) -> tuple[int, int, int, int]:
        """Shape of a batch in the layout of the input."""
        if self.input_layout == "NHWC":
            return batch, self.height, self.width, self.channels
        return batch, self.channels, self.height, self.width

    def to_json(self) -> str:
        """Canonical JSON: the same spec gives the same bytes."""
        return self.model_dump_json(indent=2) + "\n"

    def to_metadata(self) -> dict[str, str]:
        """ONNX `metadata_props` that hold this spec."""
        return {METADATA_KEY: self.model_dump_json()}

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "spec.json") -> ModelSpec:
        """Parse and check a spec.

        Raises:
            BundleError: the text is not a valid spec; the message names the field.
        """
        try:
            data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
            return validate_json(data, cls)
        except InvalidJson as error:
            raise BundleError(f"{where}: {error}.", _EXPORT_AGAIN) from error

    @classmethod
    def from_metadata(cls, metadata: dict[str, str], where: str) -> ModelSpec:
        """Read the spec out of an ONNX file's metadata.

        Raises:
            BundleError: there is none, or it is not valid.
        """
        if METADATA_KEY not in metadata:
            raise BundleError(
                f"{where} holds no '{METADATA_KEY}' metadata: it was not written by dskd-compress.",
                "Export the student with: dskd-compress export",
            )
        return cls.from_json(metadata[METADATA_KEY], where)

    @classmethod
    def read(cls, path: Path) -> ModelSpec:
        """Read `spec.json`.

        Raises:
            BundleError: it cannot be read, or as `from_json`.
        """
        try:
            data = read_bounded(path, MAX_SPEC)
        except OSError as error:
            raise BundleError(f"{path}: {error.strerror}", _EXPORT_AGAIN) from error
        except DataError as error:
            raise BundleError(error.message, _EXPORT_AGAIN) from error
        return cls.from_json(data, str(path))
