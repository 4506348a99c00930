"""Statistics of measured times: percentiles with intervals, and signs of instability. Pure.

Times of consecutive calls are correlated, and an interval that takes each as an independent measurement is too
narrow. So a percentile has the interval of its order statistics (Woodruff 1952),
of as many independent calls as the autocorrelation leaves (Sokal's windowed estimate, "Monte Carlo Methods in
Statistical Mechanics", 1996). On times of known distribution these intervals cover the truth 94 to 98 times in 100
where there are calls enough, those of a block bootstrap 82 to 96 times, and take a twentieth of its time or less
(benchmarks/results/interval_coverage.json).
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from dskd_export.documents.base import Interval
from dskd_export.documents.benchmark import Latency

Samples = NDArray[np.float64]

TOLERANCE = 0.10
"""Rates, or medians, this close to each other count as the same: a fraction of the smaller one."""

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}

_LEVEL = 0.95
_Z = NormalDist().inv_cdf(0.5 + _LEVEL / 2)
_FEWEST_INDEPENDENT = 30  # of fewer the correlation itself is hardly known, nor with it how few they are
_SOKAL_WINDOW = 5  # the estimate sums lags up to five times itself
_SEGMENTS = 10
_SURELY = 0.999  # of each tenth: the two that are compared are the extremes of ten
_FEWEST_OF_A_SEGMENT = 5
_SLOW = 1.5  # times the median
_SLOW_SHARE = 0.01
_BURST = 5.0  # slow calls in a row, about


def latency_statistics(samples_s: Samples, warmup_iterations: int, stable: bool, reason: str) -> Latency:
    """Statistics of measured times, in milliseconds; percentiles interpolate linearly.

    Args:
        samples_s: seconds [N] in order, N >= 1, each above 0.
        warmup_iterations: calls made before.
        stable: whether the rate had settled and did not drift.
        reason: why not.
    """
    if samples_s.ndim != 1 or not samples_s.size or not np.isfinite(samples_s).all() or samples_s.min() <= 0:
        raise ValueError("times must be one row of finite numbers above 0, at least one")
    times_ms = samples_s.astype(np.float64) * 1e3
    values = {name: float(value) for name, value in _percentiles(times_ms).items()}
    mean = float(times_ms.mean())
    intervals = {name: percentile_interval(times_ms, share) for name, share in PERCENTILES.items()}
    intervals["mean"] = mean_interval(times_ms)
    return Latency(
        p50_ms=values["p50"],
        p90_ms=values["p90"],
        p95_ms=values["p95"],
        p99_ms=values["p99"],
        p999_ms=values["p999"],
        mean_ms=mean,
        min_ms=float(times_ms.min()),
        max_ms=float(times_ms.max()),
        intervals_ms={name: interval for name, interval in intervals.items() if interval is not None},
        coefficient_of_variation=float(times_ms.std()) / mean,
        iterations=len(times_ms),
        warmup_iterations=warmup_iterations,
        stable=stable,
        reason=reason,
    )


def percentile_interval(samples: Samples, share: float, level: float = _LEVEL) -> Interval | None:
    """A percentile with its interval; None where too few calls lie beyond it to tell.

    Args:
        samples: [N] in the order in which they were measured.
        share: in (0, 1).
        level: how often the interval is to hold the truth, in (0, 1).
    """
    value = float(np.quantile(samples, share))
    independent = int(len(samples) / correlation_time((samples <= value).astype(np.float64)))
    ranks = _order_statistics(independent, share, level) if independent >= _FEWEST_INDEPENDENT else None
    if ranks is None:
        return None
    ordered = np.sort(samples)
    low, high = (math.ceil(rank / independent * len(ordered)) - 1 for rank in ranks)
    return Interval(value=value, low=min(value, float(ordered[low])), high=max(value, float(ordered[high])))


def mean_interval(samples: Samples) -> Interval | None:
    """The mean with its 95 % interval, by Student's t over the independent calls; None with fewer than ten."""
    independent = len(samples) / correlation_time(samples)
    if independent < 10:
        return None
    mean, half = float(samples.mean()), _t(independent - 1) * float(samples.std(ddof=1)) / math.sqrt(independent)
    return Interval(value=mean, low=mean - half, high=mean + half)


def correlation_time(series: Samples) -> float:
    """How many values stand for one independent one: 1 + 2 times the sum of the autocorrelations; at least 1."""
    count = len(series)
    centred = series - series.mean()
    if count < 2 or not centred.any():
        return 1.0
    spectrum = np.fft.rfft(centred, 1 << (2 * count - 1).bit_length())
    correlations = np.fft.irfft(spectrum * spectrum.conj())[:count]
    times = 2 * np.cumsum(correlations / correlations[0]) - 1
    wide_enough = np.arange(count) >= _SOKAL_WINDOW * times
    window = int(np.argmax(wide_enough)) if wide_enough.any() else count - 1
    return min(float(count), max(1.0, float(times[window])))


def describe_drift(samples_s: Samples) -> str:
    """Describe a drift: medians of the first and last third that are over 10 % apart; else empty."""
    third = len(samples_s) // 3
    if not third:
        return ""
    first, last = (float(np.median(part)) for part in (samples_s[:third], samples_s[-third:]))
    if spread(first, last) <= TOLERANCE:
        return ""
    return (
        f"the median drifted from {first * 1e3:.3g} ms in the first third "
        f"to {last * 1e3:.3g} ms in the last third of the calls"
    )


def describe_steps(samples_s: Samples) -> str:
    """Describe steps: medians of tenths that are significantly over 10 % apart; else empty.

    A clock that is throttled for a while leaves no drift from start to end.
    """
    if len(samples_s) < _SEGMENTS * _FEWEST_OF_A_SEGMENT:
        return ""
    medians = [percentile_interval(part, 0.5, _SURELY) for part in np.array_split(samples_s, _SEGMENTS)]
    known = sorted((median for median in medians if median is not None), key=lambda median: median.value)
    if len(known) < 2 or spread(known[0].value, known[-1].value) <= TOLERANCE or known[0].high >= known[-1].low:
        return ""
    return (
        f"the median of a tenth of the calls went from {known[0].value * 1e3:.3g} "
        f"to {known[-1].value * 1e3:.3g} ms while it was measured"
    )


def describe_bursts(samples_s: Samples) -> str:
    """Describe bursts of slow calls, as another process causes; empty where slow calls are scattered."""
    slow = samples_s > _SLOW * np.median(samples_s)
    share = float(slow.mean())
    if share < _SLOW_SHARE or correlation_time(slow.astype(np.float64)) < _BURST:
        return ""
    return f"{100 * share:.1f} % of the calls took over {_SLOW:g} times the median, and they came in bursts"


def list_instabilities(samples_s: Samples) -> list[str]:
    """List the signs of instability in measured times, in words."""
    return [
        reason
        for reason in (describe_drift(samples_s) or describe_steps(samples_s), describe_bursts(samples_s))
        if reason
    ]


def spread(*values: float) -> float:
    """Spread of positive values, as a fraction of the smallest."""
    return max(values) / min(values) - 1


def _percentiles(samples: Samples) -> dict[str, float]:
    found = np.quantile(samples, list(PERCENTILES.values()))
    return dict(zip(PERCENTILES, found.tolist(), strict=True))


def _order_statistics(count: int, share: float, level: float = _LEVEL) -> tuple[int, int] | None:
    """Ranks, 1 to count, of the order statistics that hold a percentile between them so often."""
    if count < 2:
        return None
    k = np.arange(count)
    log_odds = math.log(share) - math.log1p(-share)
    logs = np.concatenate([[0.0], np.cumsum(np.log((count - k) / (k + 1)) + log_odds)]) + count * math.log1p(
        -share
    )
    below = np.cumsum(np.exp(logs))  # P(at most k lie below the percentile)
    tail = (1 - level) / 2
    low = int(np.searchsorted(below, tail, side="right"))  # ranks below it miss the percentile with less than tail
    high = int(np.searchsorted(below, 1 - tail, side="left")) + 1
    return (low, high) if low >= 1 and high <= count else None


def _t(degrees: float) -> float:
    """The 97.5 % quantile of Student's t, by its expansion in 1/degrees (Abramowitz and Stegun 26.7.5)."""
    z = _Z
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + (z**3 + z) / (4 * degrees) + second / degrees**2 + third / degrees**3
