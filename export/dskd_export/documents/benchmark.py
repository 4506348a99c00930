"""`benchmark.json`, `ab.json` and `devices.json`: what was timed, what it cost, and under which conditions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dskd_export.documents.base import Document, Interval, Provenance
from dskd_export.documents.validation import Check


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
    intervals_ms: dict[str, Interval] = Field(
        default_factory=dict,
        description="p50, p90, p95, p99, p999, mean -> 95 % interval, the autocorrelation of the calls counted; "
        "one that is missing has too few calls beyond it",
    )
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
    scope: str | None = Field(default=None, description="whose power it is; None: no power reading here")
    rails: list[str] = Field(default_factory=list, description="whose sum is the total")
    reason: str = Field(default="", description="why there is no energy, empty where there is one")
    per_image_mj: Interval | None = Field(
        default=None, description="the interval shows how steady the power was, not how exact the sensor is"
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


PartName = Literal["decode", "preprocess", "host_to_device", "enqueue", "device", "device_to_host", "postprocess"]


class PartTime(Document):
    """What one step from the file to the class takes, for one batch; the steps are never summed with `latency`."""

    name: PartName
    p50_ms: Interval | None = Field(description="None: see `reason`")
    clock: Literal["wall", "device"] = Field(default="wall", description="device: events of the GPU")
    reason: str = Field(default="", description="why it cannot be measured separately")


class MemoryFacts(Document):
    """Memory of an open model while it was timed; 1 MB = 10^6 bytes."""

    resident_mb: float | None = Field(description="that the process grew by, from before the model was opened")
    resident_reason: str = ""
    process_peak_mb: float | None = Field(default=None, description="most that the process ever held")
    device_mb: float | None = Field(default=None, description="of the GPU, that its free memory fell by")
    device_reason: str = Field(default="", description="why it is not known")


class BenchmarkRow(Document):
    """One measured cell: a model on a runner with a batch size."""

    model: Literal["teacher", "student"]
    runner: str = Field(description="torch, onnxruntime or tensorrt")
    provider: str = Field(description="cpu, cuda, tensorrt")
    precision: str
    batch: int
    threads: int | None
    streams: int = Field(default=1, description="calls that are under way at once")
    cuda_graph: bool | None = Field(default=None, description="replayed from a CUDA graph; None: not on a GPU")
    part: Literal["engine", "with_preprocessing"] = Field(
        description="engine: arrays in, logits out; with_preprocessing: decoded image in, logits out"
    )
    latency: Latency | None
    throughput_images_per_s: float | None
    load_ms: float | None = Field(default=None, description="time to open the model")
    first_inference_ms: float | None = None
    samples_key: str | None = Field(default=None, description="array in benchmark.samples.npz, seconds")
    energy_per_image_mj: Interval | None = Field(
        default=None, description="of the scope that `energy` names, idle counted; None: see `energy_reason`"
    )
    energy_reason: str = Field(default="", description="why there is no energy")
    energy: EnergyFacts | None = Field(default=None, description="None: not measured")
    telemetry: TelemetryFacts | None = Field(default=None, description="None: not measured")
    memory: MemoryFacts | None = Field(default=None, description="None: not measured")
    size_mb: float | None = Field(default=None, description="of the model's file or engine, 1 MB = 10^6 bytes")
    breakdown: list[PartTime] = Field(
        default_factory=list, description="of the whole way from the file to the class; of with_preprocessing only"
    )
    unavailable: str = Field(default="", description="why there is no measurement")


LayerKind = Literal["quantize", "reformat", "compute"]


class LayerTime(Document):
    """One node or layer of a profiled model."""

    name: str = Field(description="in the graph that ran, where fused nodes are one; cut where it is long")
    operator: str = Field(description="ONNX Runtime's operator, or TensorRT's type of layer")
    kind: LayerKind = Field(
        description="quantize: QuantizeLinear and the like alone; reformat: changes type or order in memory; "
        "compute: all else, fused kernels among it"
    )
    p50_us: float = Field(description="median over the calls")
    share: float = Field(description="of the time of all layers, in [0, 1]")


class OperatorTime(Document):
    """All nodes or layers of one operator."""

    operator: str
    kind: LayerKind
    layers: int
    p50_us: float = Field(description="sum of the medians of its layers")
    share: float = Field(description="of the time of all layers, in [0, 1]")


class LayerProfile(Document):
    """Where the time of one model goes, from separate calls under the runner's profiler."""

    model: Literal["teacher", "student"]
    runner: str
    provider: str
    precision: str
    batch: int
    threads: int | None = None
    graph: str = Field(default="", description="which graph the names belong to")
    calls: int = Field(default=0, description="profiled, after a warm-up")
    layers: int = Field(default=0, description="nodes or layers that were timed")
    sum_ms: float | None = Field(default=None, description="of the medians of all layers; None: see `reason`")
    call_p50_ms: float | None = Field(default=None, description="wall time of a profiled call")
    latency_p50_ms: Interval | None = Field(
        default=None, description="of the row of the engine alone, without a profiler"
    )
    quantize_share: float | None = Field(default=None, description="of the time of all layers, in [0, 1]")
    reformat_share: float | None = Field(default=None, description="of the time of all layers, in [0, 1]")
    computed_in: str | None = Field(
        default=None, description="number type of most of the time of convolutions and matrix products"
    )
    slowest: list[LayerTime] = Field(default_factory=list, description="at most ten, the slowest first")
    operators: list[OperatorTime] = Field(default_factory=list, description="at most twenty, the slowest first")
    summary: str = Field(
        default="", description="in one sentence, why it is slower than a wider precision if it is"
    )
    slower_than: str | None = Field(
        default=None, description="wider precision that is faster here, by the intervals"
    )
    reason: str = Field(default="", description="why there is no profile")


ScenarioName = Literal["SingleStream", "MultiStream", "Server", "Offline"]


class ScenarioResult(Document):
    """One scenario of MLPerf LoadGen on one model: how its load comes decides what is read off."""

    model: Literal["teacher", "student"]
    runner: str
    provider: str
    precision: str
    threads: int | None
    scenario: ScenarioName
    metric: str = Field(
        description="latency_p90_ms, latency_p99_ms, rate_per_s (Server) or throughput_images_per_s"
    )
    value: Interval | None = Field(description="None: no rate meets the bound, or it could not be run")
    samples_per_query: int = Field(description="images of a query")
    batch: int = Field(description="images of a call")
    queries: int
    seconds: float
    bound_ms: float | None = Field(default=None, description="of the p99 latency, Server only")
    stable: bool = True
    reason: str = Field(default="", description="why it is not stable, or has no value")


class RowJudgement(Document):
    """Checks of a timed model against a budget or an older benchmark."""

    model: Literal["teacher", "student"]
    runner: str
    provider: str
    precision: str
    batch: int
    threads: int | None
    part: Literal["engine", "with_preprocessing"]
    checks: list[Check]

    @property
    def failed(self) -> bool:
        """Whether one of its checks failed."""
        return any(check.failed for check in self.checks)


Faster = Literal["faster", "slower", "not distinguishable"]


class Comparison(Document):
    """The second of two models against the first, of calls that were interleaved."""

    first: str
    second: str
    batch: int
    part: Literal["engine", "with_preprocessing"]
    pairs: int = Field(description="of calls, or of blocks of calls")
    ratio: Interval = Field(description="second / first of the p50, paired bootstrap, 95 %")
    verdict: Faster = Field(description="of the second; by the interval")
    stable: bool
    reason: str = Field(default="", description="why it is not stable")


class AbDocument(Document):
    """`ab.json`: two bundles or runs, timed interleaved."""

    first: str
    second: str
    first_sha256: str = Field(description="of the bundle")
    second_sha256: str
    comparisons: list[Comparison]
    provenance: Provenance


class CrossCheck(Document):
    """An engine that TensorRT's own tool timed as well."""

    tool: str = Field(description="trtexec, or tensorrt_rtx")
    precision: str
    batch: int
    command: str
    p50_ms: float | None = Field(description="the tool's median latency, copies counted")
    p99_ms: float | None
    own_p50_ms: float = Field(description="of our row of the engine alone")
    own_p99_ms: float
    ratio: float | None = Field(description="ours / the tool's, of the median")
    reason: str = Field(default="", description="why the tool gave none")


class BenchmarkDocument(Document):
    """`benchmark.json`."""

    rows: list[BenchmarkRow]
    scenarios: list[ScenarioResult] = Field(default_factory=list)
    cross_checks: list[CrossCheck] = Field(default_factory=list, description="empty unless requested")
    profiles: list[LayerProfile] = Field(
        default_factory=list, description="one for each model; empty unless requested (benchmark.profile)"
    )
    judgements: list[RowJudgement] = Field(
        default_factory=list, description="by the recipe's budget; rows without a limit are left out"
    )
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
