"""Recipe sections of what follows the training."""

from __future__ import annotations

from pathlib import PureWindowsPath
from typing import Annotated, Literal

from pydantic import Field, field_validator

from dskd_compress.config.base import Fraction, NonNegative, Positive, Section
from dskd_compress.config.precisions import CalibrationSection, QuantizeSection
from dskd_export.documents.precision import Precision
from dskd_export.documents.runner_name import RunnerChoice
from dskd_export.precision.targets import Target

Batch = Annotated[int, Field(ge=1)]


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
    teacher: bool = Field(True, description="also export the teacher, beside the bundle, to compare it")
    license: str | None = Field(
        None, min_length=1, description="licence of the exported weights, for example Apache-2.0; none: unknown"
    )

    @field_validator("license")
    @classmethod
    def _is_no_path(cls, value: str | None) -> str | None:
        if value and (value[0] in "/~" or PureWindowsPath(value).is_absolute()):
            raise ValueError("name the licence itself, not a file: a bundle holds no paths of this machine")
        return value


ProviderName = Literal["auto", "cpu", "cuda", "tensorrt"]
Operators = Annotated[
    tuple[str, ...],
    Field(description="ONNX operators that may run on the CPU under another provider, for example [Shape]"),
]


class ValidateSection(Section):
    """What is validated, and the limits of fp32; `validate` ends with exit code 5 when one is crossed."""

    images: int | None = Field(None, ge=1, description="images of the validation set to use; none: all")
    batches: tuple[Batch, ...] = Field((1, 3, 8), min_length=1, description="batch sizes for parity")
    precisions: tuple[Precision, ...] | None = Field(
        None, min_length=1, description="what to validate; none: all that the bundle holds and that can run here"
    )
    runners: tuple[Literal["onnxruntime", "tensorrt"], ...] = Field(
        ("onnxruntime", "tensorrt"),
        min_length=1,
        description="tensorrt: the engines that build made and that can be run here; alone: there has to be one",
    )
    providers: tuple[ProviderName, ...] = Field(
        ("auto",), min_length=1, description="of ONNX Runtime; auto: the CPU, and CUDA where it is present"
    )
    allow_cpu: Operators = ()
    pair: tuple[RunnerChoice, RunnerChoice] | None = Field(
        None,
        description="reference and candidate in place of torch and the bundle's models, for example "
        "[onnxruntime:cpu:fp32, onnxruntime:cpu:int8]",
    )
    max_abs_relative: Positive = Field(1e-4, description="largest logit difference / largest logit")
    min_cosine: float = Field(0.9999, ge=-1, le=1)
    max_kl: NonNegative = Field(1e-4, description="nats, the worst image")
    min_agreement: Fraction = Field(1.0, description="share of images with the same first class")
    max_top1_drop: Fraction = Field(0.005, description="accuracy that the exported student may lose against torch")
    max_pixel_error: NonNegative = Field(
        1.0, description="largest difference of the torch-free preprocessing from timm's, in 1/255"
    )


class BenchmarkSection(Section):
    """What is timed."""

    @field_validator("threads", mode="before")
    @classmethod
    def _one_number_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, int) else value

    batches: tuple[Batch, ...] = Field((1, 8), min_length=1)
    runners: tuple[Literal["torch", "onnxruntime", "tensorrt"], ...] = Field(
        ("torch", "onnxruntime", "tensorrt"),
        min_length=1,
        description="tensorrt: the engines that build made and that can be run here; alone: there has to be one",
    )
    precisions: tuple[Precision, ...] | None = Field(
        None, min_length=1, description="of the student in ONNX Runtime; none: all that the bundle holds"
    )
    providers: tuple[ProviderName, ...] = Field(
        ("auto",), min_length=1, description="of ONNX Runtime; auto: the CPU, and CUDA where it is present"
    )
    allow_cpu: Operators = ()
    cross_check: Literal["trtexec"] | None = Field(
        None, description="trtexec: have TensorRT's own tool time the engines as well"
    )
    teacher: bool = Field(True, description="time the teacher as well")
    threads: tuple[Batch, ...] | None = Field(
        None, min_length=1, description="CPU threads, each timed by itself; none: all cores"
    )
    streams: tuple[Batch, ...] = Field((1,), min_length=1, description="calls of an engine under way at once")
    scenarios: tuple[Literal["SingleStream", "MultiStream", "Server", "Offline", "all"], ...] = Field(
        (), description="of MLPerf LoadGen, run for every model"
    )
    server_bound_ms: Positive = Field(
        15.0, description="p99 latency that Server's rate has to keep; 15 is LoadGen's of resnet50"
    )
    scenario_seconds: Positive = Field(
        3.0, description="least time of a scenario, and of a rate that Server tries"
    )
    min_seconds: Positive = Field(3.0, description="least time measured for a cell")
    min_iterations: int = Field(50, ge=10, description="fewest calls measured for a cell")
    max_warmup_seconds: Positive = Field(10.0, description="give up waiting for a stable rate after this")


class ReportSection(Section):
    """The report."""

    title: str | None = Field(None, description="none: made from the teacher's and the student's names")
