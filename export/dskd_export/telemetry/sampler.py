"""Polls a source in the background while something else is measured.

The thread spends its time in system calls, which other threads do not wait for; the little Python
between them is limited to a share of one core. Errors in it are reported afterwards, never raised
into the measurement.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dskd_export.telemetry.reading import Reading, Source, SourceError

INTERVAL_S = 0.05
"""Between polls: 20 a second, so that 10 remain where the machine is busy."""

MOST_CPU = 0.05
"""Share of a core that the thread may take; a source that costs more is polled less often."""

_MOST_FAILURES = 5  # in a row: the source is dead
_END_S = 3.0


@dataclass(frozen=True)
class Trace:
    """What was sampled.

    Attributes:
        times_s: [N] of the sampler's clock, rising; the middle of each poll.
        readings: N of them.
        interval_s: between polls as it was meant.
        cpu_share: of one core, that the sampling took.
        failure: what went wrong, empty where nothing did.
    """

    times_s: NDArray[np.float64]
    readings: list[Reading]
    interval_s: float
    cpu_share: float = 0.0
    failure: str = ""


class Sampler:
    """Polls while its context is open.

    Args:
        source: what is polled; the sampler does not close it.
        interval_s: between the beginnings of two polls.
        clock: seconds, monotonic; the one that the measurement uses.
    """

    def __init__(
        self, source: Source, *, interval_s: float = INTERVAL_S, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._source = source
        self._interval_s = interval_s
        self._clock = clock
        self._ending = threading.Event()
        self._polled = threading.Condition()
        self._times_s: list[float] = []
        self._readings: list[Reading] = []
        self._cpu_s = 0.0
        self._failure = ""
        self._began_s = self._ended_s = 0.0
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def __enter__(self) -> Sampler:
        self._began_s = self._ended_s = self._clock()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ending.set()
        self._thread.join(_END_S)
        self._ended_s = self._clock()

    @property
    def blocked(self) -> bool:
        """The thread does not come back from its source: the source must be left as it is."""
        return self._ending.is_set() and self._thread.is_alive()

    def await_sample(self, after_s: float, patience_s: float) -> bool:
        """Wait for a sample that is newer than a moment of the clock; False where none comes in time."""
        with self._polled:
            return self._polled.wait_for(
                lambda: bool(self._times_s and self._times_s[-1] > after_s) or not self._thread.is_alive(),
                patience_s,
            ) and bool(self._times_s and self._times_s[-1] > after_s)

    def trace(self) -> Trace:
        """Everything until now."""
        with self._polled:
            times_s, readings, failure = list(self._times_s), list(self._readings), self._failure
        if self.blocked:
            last = times_s[-1] if times_s else self._began_s
            failure = f"{self._source.name} has not answered for {self._clock() - last:.1f} s"
        ended_s = self._ended_s if self._ending.is_set() else self._clock()
        share = self._cpu_s / (ended_s - self._began_s) if ended_s > self._began_s else 0.0
        return Trace(np.array(times_s, dtype=np.float64), readings, self._interval_s, share, failure)

    def _run(self) -> None:
        failures = 0
        due = time.monotonic()
        while not self._ending.is_set() and failures < _MOST_FAILURES:
            cpu_before = time.thread_time()
            before = self._clock()
            try:
                reading = self._source.read()
            except Exception as error:  # of any kind: the measurement continues without telemetry
                failures += 1
                what = str(error) if isinstance(error, SourceError) else repr(error)
                self._note(None, 0.0, f"{self._source.name}: {what}")
            else:
                failures = 0
                self._note(reading, (before + self._clock()) / 2, "")
            took = time.thread_time() - cpu_before
            self._cpu_s += took
            now = time.monotonic()
            # Missed polls are not repeated: two at once measure no more than one.
            due = max(due + self._interval_s, now + took / MOST_CPU - took, now)
            self._ending.wait(due - now)
        with self._polled:
            self._polled.notify_all()

    def _note(self, reading: Reading | None, at_s: float, failure: str) -> None:
        with self._polled:
            if reading is not None and (not self._times_s or at_s > self._times_s[-1]):
                self._times_s.append(at_s)
                self._readings.append(reading)
            self._failure = failure or self._failure
            self._polled.notify_all()
