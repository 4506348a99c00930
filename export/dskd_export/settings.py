"""Settings that this package executes, each declared once; the recipe's sections of these names are these models.

A field's description is its help text: `recipes init` writes it as a comment, `recipes schema` publishes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dskd_export.documents.precision import Precision
from dskd_export.documents.runner_name import AnyRunner, DeviceRunner, RunnerChoice

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Batch = Annotated[int, Field(ge=1)]

ProviderName = Literal["auto", "cpu", "cuda", "tensorrt"]
Operators = Annotated[
    tuple[str, ...],
    Field(description="ONNX operators that may run on the CPU under another provider, for example [Shape]"),
]


class KeyConflict(ValueError):
    """Keys of one section that do not go together.

    Attributes:
        ways_out: settings `key=value` of that section, each of which resolves the conflict.
    """

    def __init__(self, message: str, *ways_out: str) -> None:
        super().__init__(message)
        self.ways_out = ways_out


class Section(BaseModel):
    """Base of all settings: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class ValidateSettings(Section):
    """What is validated, and the limits of fp32; `validate` ends with exit code 5 when one is crossed."""

    images: int | None = Field(None, ge=1, description="images of the validation set to use; null: all")
    batches: tuple[Batch, ...] = Field((1, 3, 8), min_length=1, description="batch sizes for parity")
    precisions: tuple[Precision, ...] | None = Field(
        None, min_length=1, description="models to validate; null: all in the bundle that can run here"
    )
    runners: tuple[DeviceRunner, ...] = Field(
        get_args(DeviceRunner),
        min_length=1,
        description="tensorrt: the engines of build that can run here; alone: at least one is required",
    )
    providers: tuple[ProviderName, ...] = Field(
        ("auto",), min_length=1, description="of ONNX Runtime; auto: the CPU, and CUDA where it is present"
    )
    allow_cpu: Operators = ()
    pair: tuple[RunnerChoice, RunnerChoice] | None = Field(
        None,
        description="of one call of validate: reference and candidate in place of torch and the bundle's models, "
        "not kept in a run, for example "
        "[onnxruntime:cpu:fp32, onnxruntime:cpu:int8]",
    )
    photos: bool = Field(
        True, description="keep small photos of the worst mistakes for the report; false: none, for private images"
    )
    max_abs_relative: Positive = Field(1e-4, description="largest logit difference / largest logit")
    min_cosine: float = Field(0.9999, ge=-1, le=1, description="cosine of the logits, the worst image")
    max_kl: NonNegative = Field(1e-4, description="nats, the worst image")
    min_agreement: Fraction = Field(1.0, description="share of images with the same first class")
    max_top1_drop: Fraction = Field(0.005, description="accuracy that the exported student may lose against torch")
    max_pixel_error: NonNegative = Field(
        1.0, description="largest difference of the torch-free preprocessing from timm's, in 1/255"
    )

    @model_validator(mode="after")
    def _check_pair(self) -> ValidateSettings:
        if self.pair is None:
            return self
        if self.pair[0] == self.pair[1]:
            raise ValueError(f"pair names one runner twice: {self.pair[0]} cannot be compared with itself")
        for name in self.pair:
            if name.kind == "torch" and name.precision != "fp32":
                raise ValueError(
                    f"pair names {name}, but torch computes in fp32: name torch:{name.provider}:fp32 or "
                    f"onnxruntime:{name.provider}:{name.precision}"
                )
        return self


class PrecisionBudget(Section):
    """Limits of one precision; null takes the budget's own value."""

    top1_drop: Fraction | None = None
    worst_class_drop: Fraction | None = None
    agreement: Fraction | None = None
    mean_abs_relative: Positive | None = None
    size_mb: Positive | None = None


class Bf16Budget(PrecisionBudget):
    """Limits of bf16, which has eight bits of mantissa; null takes the budget's own value."""

    mean_abs_relative: Positive | None = 0.05


class EightBitBudget(PrecisionBudget):
    """Limits of a precision of eight bits; null takes the budget's own value."""

    top1_drop: Fraction | None = 0.02
    agreement: Fraction | None = 0.85
    mean_abs_relative: Positive | None = 0.15


class SpeedBudget(Section):
    """Limits of a timed student; null: not judged."""

    latency_p99_ms: Positive | None = None
    throughput_images_per_s: Positive | None = None
    energy_per_image_mj: Positive | None = None
    memory_mb: Positive | None = None
    size_mb: Positive | None = None

    @property
    def limits(self) -> dict[str, float]:
        """Those that are set."""
        return {key: value for key, value in self.model_dump().items() if value is not None}


class DeviceBudget(SpeedBudget):
    """Limits of one device, which add to or replace those of all devices; null takes the budget's own value."""

    top1_drop: Fraction | None = None


_DERIVED_PRECISIONS = ("fp16", "bf16", "int8", "fp8")


class BudgetSettings(Section):
    """Accuracy that the student may lose against its teacher, and a smaller precision against the student.

    `validate` ends with exit code 5 where more is lost, and with 6 where the images are too few to show that it is
    not: `student_drop`, `top1_drop` and `agreement` are judged by the end of their 95 % interval. A key of the
    budget applies to every precision that does not set it.
    """

    student_drop: Fraction | None = Field(
        0.02,
        description="accuracy that the student may lose against its teacher, a fraction, by its upper 95 % bound; "
        "null: not judged",
    )

    top1_drop: Fraction | None = Field(
        0.01, description="accuracy that may be lost against torch, a fraction, by its upper 95 % bound"
    )
    worst_class_drop: Fraction | None = Field(
        0.2,
        description="accuracy that a class of ten images or more may lose, a fraction, by the lower 95 % bound",
    )
    agreement: Fraction | None = Field(
        0.95, description="share of images with torch's first class, by its lower 95 % bound"
    )
    mean_abs_relative: Positive | None = Field(0.01, description="mean logit difference / largest logit")
    size_mb: Positive | None = Field(None, description="of the model file, 1 MB = 10^6 bytes")
    latency_p99_ms: Positive | None = Field(
        None,
        description="by the upper 95 % bound; benchmark ends with exit code 5 where no model meets all limits, "
        "with 6 where none is shown to",
    )
    throughput_images_per_s: Positive | None = Field(None, description="at least, by the lower 95 % bound")
    energy_per_image_mj: Positive | None = Field(None, description="by the upper 95 % bound")
    memory_mb: Positive | None = Field(
        None, description="of the GPU where the model is there, else of the process, 1 MB = 10^6 bytes"
    )
    batch: int = Field(1, ge=1, description="batch size whose speed and energy are judged")
    part: Literal["engine", "with_preprocessing"] = Field("engine", description="part of a call that is judged")
    devices: dict[str, DeviceBudget] = Field(
        default_factory=dict, description="limits of single devices, by the name of their folder in results/"
    )
    fp32: PrecisionBudget = Field(
        PrecisionBudget(), description="fp32 is judged by the limits of validate; these are added to them"
    )
    fp16: PrecisionBudget = PrecisionBudget()
    bf16: Bf16Budget = Bf16Budget()
    int8: EightBitBudget = EightBitBudget()
    fp8: EightBitBudget = EightBitBudget()

    @model_validator(mode="before")
    @classmethod
    def _apply_own_keys(cls, values: Any) -> Any:
        """A key of the budget that is written out beats the default of a precision."""
        if not isinstance(values, Mapping):
            return values
        written = [key for key in PrecisionBudget.model_fields if key in values]
        settled = dict(values)
        for precision in _DERIVED_PRECISIONS:
            own = values.get(precision, {})
            if isinstance(own, Mapping):
                settled[precision] = {**dict.fromkeys(written), **own}
        return settled

    def of(self, precision: str, device: str | None = None) -> PrecisionBudget:
        """Resolve the limits of a precision on a device; of fp32 only its own keys, or the device's.

        Args:
            precision: of the model.
            device: name of its folder in results/; None: the limits of all devices.
        """
        own: PrecisionBudget = getattr(self, precision, PrecisionBudget())
        values = own.model_dump()
        if precision != "fp32":
            values = {key: getattr(self, key) if value is None else value for key, value in values.items()}
        of_device = self.devices.get(device or "", DeviceBudget())
        values |= of_device.model_dump(include={"top1_drop", "size_mb"}, exclude_none=True)
        return PrecisionBudget(**values)

    def speed(self, device: str | None = None) -> SpeedBudget:
        """Resolve the limits of a timed student on a device."""
        own = self.devices.get(device or "", DeviceBudget()).model_dump(exclude={"top1_drop"})
        common = self.model_dump(include=set(own) - {"size_mb"})  # that of all devices is judged by validate
        return SpeedBudget(**{key: common.get(key) if value is None else value for key, value in own.items()})


class BenchmarkSettings(Section):
    """What is timed."""

    batches: tuple[Batch, ...] = Field((1, 8), min_length=1)
    runners: tuple[AnyRunner, ...] = Field(
        get_args(AnyRunner),
        min_length=1,
        description="tensorrt: the engines of build that can run here; alone: at least one is required",
    )
    precisions: tuple[Precision, ...] | None = Field(
        None, min_length=1, description="of the student in ONNX Runtime; null: all in the bundle"
    )
    providers: tuple[ProviderName, ...] = Field(
        ("auto",), min_length=1, description="of ONNX Runtime; auto: the CPU, and CUDA where it is present"
    )
    allow_cpu: Operators = ()
    cross_check: Literal["trtexec"] | None = Field(
        None, description="trtexec: time the engines with TensorRT's own tool as well"
    )
    profile: bool = Field(
        False, description="time every node or layer as well, in separate calls: about a second a model"
    )
    teacher: bool = Field(True, description="time the teacher as well")
    threads: tuple[Batch, ...] | None = Field(
        None, min_length=1, description="CPU threads, each number timed separately; null: all cores"
    )
    streams: tuple[Batch, ...] = Field((1,), min_length=1, description="concurrent calls of an engine")
    scenarios: tuple[Literal["SingleStream", "MultiStream", "Server", "Offline", "all"], ...] = Field(
        (), description="of MLPerf LoadGen, run for every model"
    )
    server_bound_ms: Positive = Field(
        15.0, description="p99 latency that Server's rate has to keep; 15 is LoadGen's of resnet50"
    )
    scenario_seconds: Positive = Field(
        3.0, description="least time of a scenario, and of a rate that Server tries"
    )
    min_seconds: Positive = Field(3.0, description="least time of a measurement")
    min_iterations: int = Field(50, ge=10, description="fewest calls of a measurement")
    max_warmup_seconds: Positive = Field(10.0, description="longest wait for a stable rate")

    @field_validator("threads", mode="before")
    @classmethod
    def _accept_one_number(cls, value: object) -> object:
        return [value] if isinstance(value, int) else value


class BuildSettings(Section):
    """TensorRT engines, built on the device that runs them; precision is that of the models in the bundle."""

    batches: tuple[Batch, ...] = Field(
        (1, 8), min_length=1, description="one optimization profile reaches from each to the one below"
    )
    workspace_mb: Positive | None = Field(
        None, description="scratch memory of a layer, 1 MB = 10^6 bytes; null: TensorRT's own limit, all there is"
    )
    optimization_level: int = Field(3, ge=0, le=5, description="how long TensorRT searches for kernels")
    tf32: bool = Field(False, description="allow TF32 in fp32 layers; no parity limit of fp32 allows it")
    version_compatible: bool = Field(False, description="loads in later TensorRT versions too; may be slower")
    hardware: Literal["none", "ampere-plus", "same-compute-capability"] = Field(
        "none", description="other GPUs that the engine runs on; may be slower; not on Jetson"
    )
