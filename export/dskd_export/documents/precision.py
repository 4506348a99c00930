"""Precision of an ONNX file, as metadata in the file itself; read on the device too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dskd_export.errors import BundleError
from dskd_export.files.json_text import InvalidJson, validate_json

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
QUANTIZED: tuple[Precision, ...] = ("int8", "fp8")
PRECISION_KEY = "dskd_precision"


class PrecisionMetadata(BaseModel):
    """How a model of a precision was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Precision
    rest: Literal["fp32", "fp16"] = Field(description="type of what is not of that precision")
    producer: str = Field(description="tool and version that made it")

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], where: str) -> PrecisionMetadata | None:
        """Read it out of an ONNX file's metadata; None where there is none, as for fp32.

        Raises:
            BundleError: it is not valid.
        """
        if PRECISION_KEY not in metadata:
            return None
        try:
            return validate_json(metadata[PRECISION_KEY].encode("utf-8", "surrogatepass"), cls)
        except InvalidJson as error:
            raise BundleError(
                f"{where}: its '{PRECISION_KEY}' metadata is not valid.", "Export the student again."
            ) from error
