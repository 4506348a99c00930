"""Watches a device while it is measured: the one door of this package for what times a model.

with Monitor("cuda:0") as monitor:
    monitor.measure_idle()
    with monitor.watch() as watch:
        timing = measure_latency(...)
    energy, telemetry = watch.facts(timing.began_s, timing.ended_s, images)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

import numpy as np

from dskd_export.documents.benchmark import EnergyFacts, TelemetryFacts
from dskd_export.telemetry import conditions
from dskd_export.telemetry import energy as joules
from dskd_export.telemetry.host import usable_cores
from dskd_export.telemetry.jetson import is_jetson, power_mode
from dskd_export.telemetry.nvml import NvmlSource
from dskd_export.telemetry.reading import JoinedSource, Reading, Source, SourceError
from dskd_export.telemetry.sampler import INTERVAL_S, Sampler, Trace
from dskd_export.telemetry.system import SystemSource
from dskd_export.telemetry.tegrastats import TegrastatsSource
from dskd_export.telemetry.usage import cpu_time, other_cores

IDLE_S = 2.0
_PATIENCE_INTERVALS = 20

Values = Callable[[Reading], Mapping[str, float]]


def open_source(device: str, root: Path = Path("/")) -> Source:
    """The best source of a device here: sysfs rails, then tegrastats on a Jetson; NVML for another GPU; RAPL.

    What had to be passed over stands in the source's reason where nothing gives a total.

    Args:
        device: `cpu` or `cuda:0`.
        root: of the file system.
    """
    system = SystemSource(device, root)
    if system.total is not None:
        return system
    try:
        if is_jetson(root):
            return JoinedSource(system, TegrastatsSource())
        if device.startswith("cuda"):
            return JoinedSource(system, NvmlSource(int(device.partition(":")[2] or 0)))
    except SourceError as error:
        system.reason = f"{system.reason}; {error}"
    return system


class Monitor:
    """A source and its idle baseline, for as long as a device is measured.

    Args:
        device: `cpu` or `cuda:0`.
        source: None takes the best one here.
        interval_s: between samples.
        root: of the file system.
    """

    def __init__(
        self,
        device: str,
        *,
        source: Source | None = None,
        interval_s: float = INTERVAL_S,
        root: Path = Path("/"),
    ) -> None:
        self.device = device
        self.root = root
        self.interval_s = interval_s
        self.source = open_source(device, root) if source is None else source
        self.idle: joules.Energy | None = None
        self.idle_reason = "the idle power was not measured"
        self.blocked = ""

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *error: object) -> None:
        if not self.blocked:  # a thread still uses it otherwise; it ends with the process
            self.source.close()

    def measure_idle(self, seconds: float = IDLE_S) -> None:
        """Measure the power at rest; the device must have nothing to do. Takes no time without a power."""
        if self.source.total is None:
            self.idle_reason = self.source.reason
            return
        with self.watch() as watch:
            time.sleep(seconds)
        trace = watch.trace
        try:
            self.idle = _energy(self.source, trace, watch.began_s, watch.ended_s)[0]
        except joules.NoEnergy as error:
            self.idle_reason = f"the idle power: {_with_failure(str(error), trace)}"

    def watch(self) -> Watch:
        """A context during which the device is sampled."""
        return Watch(self)


class Watch:
    """Samples of a device while its context was open."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._sampler = None if monitor.blocked else Sampler(monitor.source, interval_s=monitor.interval_s)
        self.began_s = self.ended_s = 0.0
        self.trace = Trace(np.empty(0), [], monitor.interval_s, failure=monitor.blocked)

    def __enter__(self) -> Watch:
        self._cpu_before = cpu_time(self._monitor.root)
        if self._sampler is not None:
            self._sampler.__enter__()
            self._sampler.await_sample(-np.inf, _PATIENCE_INTERVALS * self._monitor.interval_s)
        self.began_s = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended_s = time.perf_counter()
        self._cpu_after = cpu_time(self._monitor.root)
        if self._sampler is None:
            return
        # One sample after the end, so that the power there is interpolated.
        if kind is None:
            self._sampler.await_sample(self.ended_s, _PATIENCE_INTERVALS * self._monitor.interval_s)
        self._sampler.__exit__(kind, error, trace)
        self.trace = self._sampler.trace()
        if self._sampler.blocked:
            self._monitor.blocked = self.trace.failure

    def facts(self, start_s: float, end_s: float, images: int) -> tuple[EnergyFacts, TelemetryFacts]:
        """Energy and conditions of the part that was measured.

        Args:
            start_s: of `time.perf_counter`, when the first measured call began.
            end_s: when the last one ended.
            images: that were computed in between.
        """
        return self._energy_facts(start_s, end_s, images), self._telemetry_facts(start_s, end_s)

    def _energy_facts(self, start_s: float, end_s: float, images: int) -> EnergyFacts:
        source, trace, idle = self._monitor.source, self.trace, self._monitor.idle
        if source.total is None:
            return EnergyFacts(source=source.name, reason=source.reason)
        about = {"source": source.name, "scope": source.total.scope, "rails": list(source.total.rails)}
        try:
            energy, method, note = _energy(source, trace, start_s, end_s)
        except joules.NoEnergy as error:
            return EnergyFacts(**about, reason=_with_failure(str(error), trace))
        rails = conditions.summarize(
            conditions.select_readings(trace, start_s, end_s), lambda reading: reading.power_w
        )
        return EnergyFacts(
            **about,
            per_image_mj=joules.divide_by_images(energy.joules, images),
            above_idle_per_image_mj=(
                None if idle is None else joules.divide_by_images(joules.subtract_idle(energy, idle), images)
            ),
            idle_w=None if idle is None else idle.watts,
            idle_reason="" if idle is not None else self._monitor.idle_reason,
            mean_w=energy.watts,
            energy_j=energy.joules.value,
            seconds=energy.seconds,
            images=images,
            method=method,
            samples=energy.samples,
            gaps=energy.gaps.count,
            gap_share=energy.gaps.share,
            rails_w=rails,
            note="; ".join(filter(None, [note, trace.failure])),
        )

    def _telemetry_facts(self, start_s: float, end_s: float) -> TelemetryFacts:
        monitor, trace = self._monitor, self.trace
        readings = conditions.select_readings(trace, start_s, end_s)
        inside = int(((trace.times_s >= start_s) & (trace.times_s <= end_s)).sum())
        throttled = conditions.list_throttling(readings)
        mode = power_mode(monitor.root)
        others = [] if monitor.blocked else monitor.source.others()
        cores = other_cores(self._cpu_before, self._cpu_after)
        return TelemetryFacts(
            source=monitor.source.name,
            clocks_mhz=conditions.summarize(readings, lambda reading: reading.clocks_mhz),
            temperatures_c=conditions.summarize(readings, lambda reading: reading.temperatures_c),
            throttled=throttled,
            unstable=[
                *(f"clocks were held down: {cause}" for cause in throttled),
                *conditions.list_clock_changes(readings, monitor.device),
                *conditions.list_neighbours(monitor.device, others, cores, usable_cores()),
            ],
            power_mode=None if mode.name is None and mode.number is None else str(mode),
            power_mode_reason=mode.reason,
            other_processes=others,
            other_cpu_cores=cores,
            samples=inside,
            rate_hz=inside / (end_s - start_s),
            sampling_cpu_share=trace.cpu_share,
            failure=trace.failure,
        )


def _energy(source: Source, trace: Trace, start_s: float, end_s: float) -> tuple[joules.Energy, str, str]:
    """By the counter where there is one, checked against the samples; the way taken; what there is to note."""
    assert source.total is not None
    found: dict[str, joules.Energy] = {}
    problems: list[str] = []
    for method, values, integrate in (
        ("counter", lambda reading: reading.energy_j, joules.energy_from_counter),
        ("samples", lambda reading: reading.power_w, joules.energy_from_power),
    ):
        times_s, series = _sum_of(source.total.rails, trace, values)
        if not len(times_s):
            continue
        try:
            found[method] = integrate(times_s, series, start_s, end_s, trace.interval_s)
        except joules.NoEnergy as error:
            problems.append(str(error))
    if not found:
        raise joules.NoEnergy("; ".join(dict.fromkeys(problems)) or "no sample has the power of all rails")
    method, energy = next(iter(found.items()))
    if len(found) == 2:
        by_counter, by_samples = (found[method].joules.value for method in ("counter", "samples"))
        if abs(by_counter - by_samples) > joules.DISAGREEMENT * by_counter:
            problems.append(f"the counter says {by_counter:.4g} J, the samples of the power {by_samples:.4g} J")
    return energy, method, "; ".join(problems)


def _sum_of(rails: tuple[str, ...], trace: Trace, values: Values) -> tuple[joules.Samples, joules.Samples]:
    """Times and sums of the samples that have all of some rails."""
    having = [
        (at_s, sum(values(reading)[rail] for rail in rails))
        for at_s, reading in zip(trace.times_s, trace.readings, strict=True)
        if all(rail in values(reading) for rail in rails)
    ]
    table = np.array(having, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _with_failure(reason: str, trace: Trace) -> str:
    return f"{reason} ({trace.failure})" if trace.failure else reason
