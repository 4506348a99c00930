from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from dskd_export.telemetry.reading import JoinedSource, Reading, SourceError, Total
from dskd_export.telemetry.sampler import MOST_CPU, Sampler


class FakeSource:
    """Calls a function for each reading."""

    name = "a fake"
    reason = ""

    def __init__(self, read: Callable[[int], Reading], total: Total | None = Total(("rail",), "the fake")) -> None:
        self.polls = 0
        self.total = total
        self.closed = 0
        self._read = read

    def read(self) -> Reading:
        self.polls += 1
        return self._read(self.polls)

    def others(self) -> list[str]:
        return ["process 7"]

    def close(self) -> None:
        self.closed += 1


def steady(_: int) -> Reading:
    return Reading(power_w={"rail": 5.0})


def samplers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "telemetry"]


def test_ten_a_second_and_no_thread_left() -> None:
    source = FakeSource(steady)
    began = time.perf_counter()
    with Sampler(source) as sampler:
        time.sleep(1.0)
    ended = time.perf_counter()
    trace = sampler.trace()
    assert samplers() == []
    assert len(trace.readings) == len(trace.times_s) >= 10
    assert len(trace.readings) <= 22  # and not as fast as it can
    assert (np.diff(trace.times_s) > 0).all()
    assert began <= trace.times_s[0] <= trace.times_s[-1] <= ended
    assert trace.failure == ""
    assert 0 < trace.cpu_share < MOST_CPU
    assert source.closed == 0


def test_a_costly_source_is_asked_less_often() -> None:
    def burn(_: int) -> Reading:
        until = time.thread_time() + 0.02
        while time.thread_time() < until:
            pass
        return Reading()

    with Sampler(FakeSource(burn), interval_s=0.01) as sampler:
        time.sleep(1.5)
    trace = sampler.trace()
    assert 2 <= len(trace.readings) <= 5  # every 0.4 s, where 0.01 s was asked for
    assert trace.cpu_share <= 1.5 * MOST_CPU


def test_a_source_that_dies() -> None:
    def die(poll: int) -> Reading:
        if poll > 4:
            raise SourceError("the sensor is gone")
        return steady(poll)

    source = FakeSource(die)
    with Sampler(source, interval_s=0.01) as sampler:
        time.sleep(0.5)
    trace = sampler.trace()
    assert len(trace.readings) == 4
    assert trace.failure == "a fake: the sensor is gone"
    assert source.polls == 9  # asked five times more, then left alone


def test_a_source_that_stumbles() -> None:
    def stumble(poll: int) -> Reading:
        if poll in (3, 4):
            raise ZeroDivisionError
        return steady(poll)

    source = FakeSource(stumble)
    with Sampler(source, interval_s=0.01) as sampler:
        time.sleep(0.5)
    trace = sampler.trace()
    assert len(trace.readings) == source.polls - 2 > 4
    assert trace.failure == "a fake: ZeroDivisionError()"


def test_a_source_that_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dskd_export.telemetry.sampler._END_S", 0.2)
    free = threading.Event()

    def block(poll: int) -> Reading:
        if poll > 3:
            free.wait(30)
        return steady(poll)

    began = time.perf_counter()
    with Sampler(FakeSource(block), interval_s=0.01) as sampler:
        time.sleep(0.3)
    assert time.perf_counter() - began < 5
    assert sampler.blocked
    trace = sampler.trace()
    assert len(trace.readings) == 3
    assert trace.failure.startswith("a fake has not answered for ")
    free.set()
    samplers()[0].join(5)
    assert not sampler.blocked


def test_waiting_for_a_sample() -> None:
    with Sampler(FakeSource(steady), interval_s=0.02) as sampler:
        now = time.perf_counter()
        assert sampler.await_sample(now, 5)
        assert sampler.trace().times_s[-1] > now
        assert not sampler.await_sample(now + 100, 0.05)

    def never(_: int) -> Reading:
        raise SourceError("no")

    with Sampler(FakeSource(never), interval_s=0.001) as sampler:
        began = time.perf_counter()
        assert not sampler.await_sample(0, 30)  # the thread has given up: nothing is waited for
        assert time.perf_counter() - began < 5


def test_an_error_of_the_measurement_is_its_own() -> None:
    with pytest.raises(KeyError, match="mine"), Sampler(FakeSource(steady)):
        raise KeyError("mine")
    assert samplers() == []


def test_the_timed_thread_is_hardly_disturbed() -> None:
    """Pure Python is the worst case: the two threads share one lock."""

    def work() -> float:
        began = time.thread_time()
        total = 0
        for number in range(2_000_000):
            total += number
        return time.thread_time() - began

    alone = min(work() for _ in range(3))
    with Sampler(FakeSource(steady)):
        watched = min(work() for _ in range(3))
    assert watched < 1.25 * alone


def test_joined_sources() -> None:
    first = FakeSource(lambda _: Reading(clocks_mhz={"cpu": 1.0, "gpu": 2.0}, throttling=frozenset({"hot"})), None)
    first.reason = "no rails"
    second = FakeSource(lambda _: Reading(power_w={"rail": 3.0}, clocks_mhz={"gpu": 4.0}, events={"oc": 5}))
    joined = JoinedSource(first, second)
    assert joined.total == second.total
    assert joined.reason == ""
    assert joined.read() == Reading(
        power_w={"rail": 3.0}, clocks_mhz={"cpu": 1.0, "gpu": 4.0}, throttling=frozenset({"hot"}), events={"oc": 5}
    )
    assert joined.others() == ["process 7", "process 7"]
    joined.close()
    assert (first.closed, second.closed) == (1, 1)
    neither = JoinedSource(first, first)
    assert (neither.total, neither.reason) == (None, "no rails")
