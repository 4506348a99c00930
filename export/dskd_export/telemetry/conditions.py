"""Summarize clocks and temperatures of a measurement, and what disturbed it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dskd_export.documents.benchmark import Course
from dskd_export.telemetry.reading import Reading
from dskd_export.telemetry.sampler import Trace

CLOCK_CHANGE = 0.10
"""A clock has changed where its median moves by more than this share from the first third to the last."""

NEIGHBOUR_SHARE = 0.10
"""Other processes disturb where they keep more than this share of the cores busy."""

_JUDGED = {"cpu": ("cpu", "emc"), "cuda": ("gpu", "memory", "emc")}
_CLOCKS = {"cpu": "the CPU", "gpu": "the GPU", "emc": "the memory controller", "memory": "the GPU's memory"}


def select_readings(trace: Trace, start_s: float, end_s: float) -> list[Reading]:
    """The readings of a window and the nearest one on each side."""
    first = max(0, int(np.searchsorted(trace.times_s, start_s, side="right")) - 1)
    last = int(np.searchsorted(trace.times_s, end_s, side="left")) + 1
    return trace.readings[first:last]


def summarize(readings: list[Reading], values: Callable[[Reading], Mapping[str, float]]) -> dict[str, Course]:
    """Summarize each value: start, end, minimum, maximum of the readings that have it."""
    found: dict[str, list[float]] = {}
    for reading in readings:
        for name, value in values(reading).items():
            found.setdefault(name, []).append(value)
    return {
        name: Course(start=series[0], end=series[-1], low=min(series), high=max(series))
        for name, series in found.items()
    }


def list_throttling(readings: list[Reading]) -> list[str]:
    """List what throttled the clocks during these readings, with the number of events if counted."""
    causes = dict.fromkeys(sorted(cause for reading in readings for cause in reading.throttling))
    counted = []
    for cause in dict.fromkeys(cause for reading in readings for cause in reading.events):
        counts = [reading.events[cause] for reading in readings if cause in reading.events]
        if counts[-1] > counts[0]:
            counted.append(f"{cause}: {counts[-1] - counts[0]} times")
    return [*causes, *counted]


def list_neighbours(device: str, others: Sequence[str], other_cores: float | None, cores: int) -> list[str]:
    """Other processes that a measurement shared its device with, in words.

    Args:
        device: `cpu` or `cuda:0`.
        others: processes on the same GPU.
        other_cores: that other processes kept busy on the average; None: not known.
        cores: of the machine that this process may use.
    """
    if device.startswith("cuda"):
        return [f"shared the GPU with {other}" for other in others]
    if other_cores is not None and other_cores > NEIGHBOUR_SHARE * cores:
        return [f"other processes kept {other_cores:.1f} of {cores} cores busy"]
    return []


def list_clock_changes(readings: list[Reading], device: str) -> list[str]:
    """Clocks that matter to a device and did not stay, in words."""
    third = len(readings) // 3
    if not third:
        return []
    changes = []
    for name in _JUDGED["cuda" if device.startswith("cuda") else "cpu"]:
        parts = [
            [reading.clocks_mhz[name] for reading in part if name in reading.clocks_mhz]
            for part in (readings[:third], readings[-third:])
        ]
        if not all(parts):
            continue
        first, last = (float(np.median(part)) for part in parts)
        if max(first, last) > (1 + CLOCK_CHANGE) * min(first, last):
            verb = "fell" if last < first else "rose"
            changes.append(
                f"the clock of {_CLOCKS[name]} {verb} from {first:.0f} MHz in the first third "
                f"to {last:.0f} MHz in the last third"
            )
    return changes
