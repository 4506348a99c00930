"""Recipe sections of what follows the training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dskd_compress.config.base import Fraction, NonNegative, Positive, Section


class ExportSection(Section):
    """From the student to the bundle."""

    opset: int = Field(20, ge=18, le=21, description="ONNX operator set; 20 is what TensorRT 10.3 reads")
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


class ValidateSection(Section):
    """Limits of the gate; `validate` ends with exit code 5 when one is crossed."""

    images: int | None = Field(None, ge=1, description="images of the validation set to use; none: all")
    batches: tuple[int, ...] = Field((1, 3, 8), min_length=1, description="batch sizes for parity")
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

    batches: tuple[int, ...] = Field((1, 8), min_length=1)
    runners: tuple[Literal["torch", "onnxruntime"], ...] = Field(("torch", "onnxruntime"), min_length=1)
    providers: tuple[Literal["auto", "cpu", "cuda"], ...] = Field(
        ("auto",), min_length=1, description="auto: the CPU, and CUDA where it is present"
    )
    teacher: bool = Field(True, description="time the teacher as well")
    threads: int | None = Field(None, ge=1, description="CPU threads; none: all cores")
    min_seconds: Positive = Field(3.0, description="least time measured for a cell")
    min_iterations: int = Field(50, ge=10, description="fewest calls measured for a cell")
    max_warmup_seconds: Positive = Field(10.0, description="give up waiting for a stable rate after this")


class ReportSection(Section):
    """The report."""

    title: str | None = Field(None, description="none: made from the teacher's and the student's names")
