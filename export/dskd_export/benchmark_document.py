"""`benchmark.json` and `devices.json`: what was timed, what it cost in energy, and under which conditions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dskd_export.documents import Document, Interval, Provenance


class Latency(Document):
    """Latency of one call with one batch, in milliseconds."""

    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    p999_ms: float
    mean_ms: float
    min_ms: float
    max_ms: float
    coefficient_of_variation: float = Field(description="standard deviation / mean")
    iterations: int
    warmup_iterations: int
    stable: bool = Field(description="the rate settled during warm-up and did not drift afterwards")
    reason: str = Field(default="", description="why it is not stable")


class Course(Document):
    """How a value went during a measurement."""

    start: float
    end: float
    low: float
    high: float


class EnergyFacts(Document):
    """What a measured row cost in energy, all of its scope counted; idle is in it."""

    source: str = Field(description="where the power comes from")
    scope: str | None = Field(default=None, description="whose power it is; None: nothing tells of a power here")
    rails: list[str] = Field(default_factory=list, description="whose sum is the total")
    reason: str = Field(default="", description="why there is no energy, empty where there is one")
    per_image_mj: Interval | None = Field(
        default=None, description="the interval tells how steady the power was, not how exact the sensor is"
    )
    above_idle_per_image_mj: Interval | None = Field(default=None, description="beyond the power at rest")
    idle_w: float | None = Field(default=None, description="power at rest, before anything was timed")
    idle_reason: str = Field(default="", description="why it is not known")
    mean_w: float | None = None
    energy_j: float | None = Field(default=None, description="of all measured calls together")
    seconds: float | None = Field(default=None, description="from the first measured call to the last one's end")
    images: int | None = Field(default=None, description="computed in that time")
    method: Literal["counter", "samples"] | None = Field(
        default=None, description="an energy counter, or trapezoids over samples of the power"
    )
    samples: int | None = None
    gaps: int | None = Field(default=None, description="stretches of more than three intervals without a sample")
    gap_share: float | None = Field(default=None, description="of the measured time, in [0, 1]")
    rails_w: dict[str, Course] = Field(default_factory=dict, description="every rail, in the total or not")
    note: str = Field(default="", description="a counter that disagrees with the samples, a source that failed")


class TelemetryFacts(Document):
    """Under which conditions a row was measured."""

    source: str
    clocks_mhz: dict[str, Course] = Field(description="cpu, gpu, emc (memory controller), memory (of the GPU)")
    temperatures_c: dict[str, Course]
    throttled: list[str] = Field(description="what held clocks down while it was measured")
    unstable: list[str] = Field(description="why clocks make the row unstable, in words")
    power_mode: str | None = Field(description="of nvpmodel, on a Jetson")
    power_mode_reason: str = Field(default="", description="why it is not known")
    other_processes: list[str] = Field(description="on the same GPU, where they can be seen")
    other_cpu_cores: float | None = Field(description="cores that other processes kept busy on the average")
    samples: int
    rate_hz: float = Field(description="samples a second that came")
    sampling_cpu_share: float = Field(description="of one core, that the sampling took")
    failure: str = Field(default="", description="what went wrong with the source, empty where nothing did")


class BenchmarkRow(Document):
    """One measured cell: a model on a runner with a batch size."""

    model: Literal["teacher", "student"]
    runner: str = Field(description="torch or onnxruntime")
    provider: str = Field(description="cpu, cuda, tensorrt")
    precision: str
    batch: int
    threads: int | None
    part: Literal["engine", "with_preprocessing"] = Field(
        description="engine: arrays in, logits out; with_preprocessing: decoded image in, logits out"
    )
    latency: Latency | None
    throughput_images_per_s: float | None
    load_ms: float | None = Field(default=None, description="time to open the model")
    first_inference_ms: float | None = None
    samples_key: str | None = Field(default=None, description="array in benchmark.samples.npz, seconds")
    energy_per_image_mj: Interval | None = Field(
        default=None, description="of the scope that `energy` names, idle counted; None with its reason beside"
    )
    energy_reason: str = Field(default="", description="why there is no energy")
    energy: EnergyFacts | None = Field(default=None, description="None: nobody measured it")
    telemetry: TelemetryFacts | None = Field(default=None, description="None: nobody looked")
    unavailable: str = Field(default="", description="why there is no measurement")


class BenchmarkDocument(Document):
    """`benchmark.json`."""

    rows: list[BenchmarkRow]
    images: str = Field(default="", description="what was fed where it is no data set; empty: the validation set")
    bundle_sha256: str
    provenance: Provenance


class DeviceResult(Document):
    """One device of `devices.json`."""

    name: str = Field(description="of its folder of results")
    address: str = Field(description="local, or ssh://user@host")
    benchmark: BenchmarkDocument | None = None
    reason: str = Field(default="", description="why there is no benchmark")


class DevicesDocument(Document):
    """`devices.json`: one bundle on several devices."""

    bundle_sha256: str
    devices: list[DeviceResult]
