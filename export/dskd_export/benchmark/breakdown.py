"""Time each step from the bytes of an image's file to its class.

Each step is timed alone, after the latency was measured: their sum is not the latency, whose caches are warm and
whose steps overlap. Steps that a runner does in one call are not split by guessing.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from PIL import Image

from dskd_export.benchmark.statistics import percentile_interval
from dskd_export.benchmark.timing import time_calls
from dskd_export.documents.base import Interval
from dskd_export.documents.benchmark import PartName, PartTime
from dskd_export.runtime.metrics import top_classes
from dskd_export.runtime.preprocess import preprocess_batch
from dskd_export.runtime.runner import Runner
from dskd_export.spec import ModelSpec

PART_SECONDS = 0.2
"""Default of the least time of each step."""

_FEWEST = 11
JPEG_QUALITY = 90
_OF_A_DEVICE: tuple[PartName, ...] = ("host_to_device", "enqueue", "device", "device_to_host")
_CLOCKS: dict[PartName, Literal["wall", "device"]] = {
    "host_to_device": "device",
    "enqueue": "wall",
    "device": "device",
    "device_to_host": "device",
}


def measure_breakdown(
    runner: Runner, provider: str, spec: ModelSpec, images: Sequence[Image.Image], seconds: float = PART_SECONDS
) -> list[PartTime]:
    """Time every step for one batch.

    Args:
        runner: open.
        provider: cpu, cuda or tensorrt.
        spec: of the model.
        images: decoded, of one batch. The step of decoding reads them as JPEG files of quality 90.
        seconds: least time of each step.
    """
    files = [_jpeg(image) for image in images]
    input_B = preprocess_batch(images, spec)
    feeds = {spec.input_name: input_B}
    (output_BK,) = runner.infer(feeds).values()
    on_cpu = provider == "cpu"
    parts = [
        _time_step("decode", seconds, lambda: [_decoded(data) for data in files]),
        _time_step("preprocess", seconds, lambda: preprocess_batch(images, spec)),
    ]
    of_device = getattr(runner, "time_parts", None)
    if on_cpu:
        copies = "the arrays are in the memory that the CPU computes in"
        parts += [PartTime(name="host_to_device", p50_ms=None, reason=copies)]
        parts += [PartTime(name="enqueue", p50_ms=None, reason="the call itself computes")]
        parts += [_time_step("device", seconds, lambda: runner.infer(feeds))]
        parts += [PartTime(name="device_to_host", p50_ms=None, reason=copies)]
    elif of_device is not None:
        found = of_device(feeds, calls=_FEWEST)
        for name in _OF_A_DEVICE:
            parts.append(PartTime(name=name, p50_ms=_p50(found[name]), clock=_CLOCKS[name]))
    else:
        reason = f"{runner.name} copies and computes in one call"
        parts += [PartTime(name=name, p50_ms=None, reason=reason) for name in _OF_A_DEVICE]
    return [*parts, _time_step("postprocess", seconds, lambda: top_classes(output_BK))]


def _time_step(name: PartName, seconds: float, call: Callable[[], object]) -> PartTime:
    call()
    samples_s = time_calls(call, time.perf_counter, count=_FEWEST, seconds=seconds)
    return PartTime(name=name, p50_ms=_p50([1e3 * sample for sample in samples_s]))


def _p50(samples_ms: Sequence[float]) -> Interval:
    times = np.array(samples_ms, dtype=np.float64)
    found = percentile_interval(times, 0.5)
    if found is not None:
        return found
    return Interval(value=float(np.median(times)), low=float(times.min()), high=float(times.max()))


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _decoded(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")
