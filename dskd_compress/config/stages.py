"""Recipe sections of what follows the training."""

from __future__ import annotations

from pathlib import PureWindowsPath
from typing import Literal

from pydantic import Field, field_validator

from dskd_export.documents.precision import Precision
from dskd_export.precision.targets import Target
from dskd_export.settings import Fraction, NonNegative, Section


class CalibrationSection(Section):
    """Training images that ranges are measured on; evaluation images are never among them."""

    images: int = Field(512, ge=1, le=10_000, description="spread over the classes; all are in memory at once")
    seed: int | None = Field(None, description="that draws them; null: the recipe's")


class QuantizeSection(Section):
    """How fp16, bf16, int8 and fp8 are made of the fp32 graph."""

    producer: Literal["auto", "modelopt", "onnxruntime"] = Field(
        "auto", description="auto: ModelOpt where it is installed, else ONNX Runtime's tools"
    )
    method: Literal["max", "entropy", "percentile"] = Field(
        "max", description="calibration of int8: largest value, least information lost, or 99.99 % of the values"
    )
    rest: Literal["auto", "fp32", "fp16"] = Field(
        "auto", description="type of what int8 and fp8 do not quantise; auto: what suits the target"
    )
    keep: tuple[str, ...] = Field((), description="names of ONNX nodes that stay fp32 in every precision")
    search: bool = Field(True, description="find the layers that cost the accuracy and leave them in fp32")
    search_images: int = Field(256, ge=1, description="calibration images that the search scores on")
    max_kl: NonNegative = Field(
        0.01,
        description="good enough: mean KL to fp32 on those images, in nats; accuracy of so few images is noise",
    )
    max_kept: Fraction = Field(0.5, description="largest share of the layers that the search may put back")


class ExportSection(Section):
    """From the student to the bundle."""

    opset: int = Field(20, ge=18, le=21, description="ONNX operator set; 20 is what TensorRT 10.3 reads")
    target: Target = Field("cpu", description="what the precisions are chosen for")
    precisions: tuple[Precision, ...] | Literal["auto"] = Field(
        ("fp32",), description="models in the bundle; fp32 is always there; auto: all that the target computes in"
    )
    calibration: CalibrationSection = CalibrationSection()
    quantize: QuantizeSection = QuantizeSection()
    exporter: Literal["dynamo", "legacy"] = Field(
        "dynamo", description="of torch; legacy traces with TorchScript, for models that dynamo cannot take"
    )
    input: Literal["float32", "uint8"] = Field(
        "float32", description="uint8: the graph takes RGB pixels and normalises them itself"
    )
    layout: Literal["NCHW", "NHWC"] = Field(
        "NCHW", description="of the input; images come as NHWC from most decoders"
    )
    softmax: bool = Field(False, description="end in a softmax: the output is probabilities and not logits")
    dynamic_size: bool = Field(False, description="take images of any height and width, where the model does")
    slim: bool = Field(False, description="run onnxslim after onnxscript's optimiser")
    golden_images: int = Field(16, ge=1, le=256, description="real inputs kept with their reference logits")
    teacher: bool = Field(True, description="also export the teacher, next to the bundle, to compare it")
    license: str | None = Field(
        None, min_length=1, description="licence of the exported weights, for example Apache-2.0; null: unknown"
    )

    @field_validator("license")
    @classmethod
    def _is_no_path(cls, value: str | None) -> str | None:
        if value and (value[0] in "/~" or PureWindowsPath(value).is_absolute()):
            raise ValueError("name the licence itself, not a file: a bundle holds no paths of this machine")
        return value


class ReportSection(Section):
    """The report."""

    title: str | None = Field(None, description="null: made from the teacher's and the student's names")
