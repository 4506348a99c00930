from __future__ import annotations

from dskd_export.benchmark.unstable import list_unstable_reasons
from dskd_export.documents.benchmark import Latency


def latency(reason: str = "", stable: bool = False) -> Latency:
    names = ("p50", "p90", "p95", "p99", "p999", "mean", "min", "max")
    times = {f"{name}_ms": 1.0 for name in names}
    return Latency(
        **times, coefficient_of_variation=0.1, iterations=9, warmup_iterations=1, stable=stable, reason=reason
    )


def test_twelve_rows_of_one_kind_are_one_line() -> None:
    rows = [latency(f"the rate drifted by {percent} % after the warm-up") for percent in (4, 14.5, 9)] * 4
    (line,) = list_unstable_reasons(rows)
    assert line == "the rate drifted by 14.5 % after the warm-up (12 measurements, this is the worst)"


def test_reasons_of_one_row_are_told_apart_and_stable_rows_say_nothing() -> None:
    rows = [
        latency("drift of 3 %; other processes kept 1.2 cores busy"),
        latency("drift of 3 %"),
        latency(stable=True),
    ]
    assert list_unstable_reasons(rows) == ["drift of 3 % (2 measurements)", "other processes kept 1.2 cores busy"]
    assert list_unstable_reasons([latency(stable=True)]) == []
    assert list_unstable_reasons([latency()]) == ["no reason was recorded"]
