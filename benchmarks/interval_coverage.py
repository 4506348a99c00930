"""Coverage of two intervals of a percentile on known distributions: ours, and a bootstrap of moving blocks.

    python benchmarks/interval_coverage.py --out benchmarks/results/interval_coverage.json

Times are lognormal (sigma 0.25), independent or autocorrelated (AR(1) of the logarithm), or of two modes. The
bootstrap draws blocks of 2 N^(1/3) calls, 400 times. Counted are the share of nominal 95 % intervals that hold
the true percentile, the share with too few calls for an interval, and the milliseconds per interval.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from measurement import make_parser, print_head, print_row, write_result
from scipy import optimize, signal, stats

from dskd_export.benchmark.statistics import percentile_interval
from dskd_export.provenance import Stopwatch

KINDS = ("independent", "two modes", "AR(1) 0.5", "AR(1) 0.9")
SIGMA, SLOWER, SHARE, WIDTH = 0.25, 1.6, 0.2, 0.05


def draw_times(kind: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw times of calls, in order."""
    if kind == "two modes":
        return np.where(rng.random(count) < SHARE, SLOWER, 1.0) * np.exp(WIDTH * rng.normal(size=count))
    phi = float(kind.split()[1]) if kind.startswith("AR") else 0.0
    noise = np.sqrt(1 - phi**2) * rng.normal(size=count + 200)
    return np.exp(SIGMA * signal.lfilter([1], [1, -phi], noise)[200:])


def find_percentile(kind: str, share: float) -> float:
    """Find the percentile of the distribution."""
    if kind != "two modes":
        return float(np.exp(SIGMA * stats.norm.ppf(share)))

    def above(x: float) -> float:
        fast, slow = (stats.norm.cdf(np.log(x / mode) / WIDTH) for mode in (1.0, SLOWER))
        return (1 - SHARE) * fast + SHARE * slow - share

    return float(optimize.brentq(above, 0.5, 3))


def bootstrap_blocks(
    samples: np.ndarray, share: float, rng: np.random.Generator, draws: int = 400
) -> tuple[float, float]:
    """Compute the 2.5 and 97.5 % quantiles of a percentile over resampled blocks (Künsch 1989)."""
    count = len(samples)
    block = round(2 * count ** (1 / 3))
    starts = rng.integers(0, count - block + 1, size=(draws, -(-count // block)))
    index = (starts[:, :, None] + np.arange(block)).reshape(draws, -1)[:, :count]
    low, high = np.quantile(np.quantile(samples[index], share, axis=1), [0.025, 0.975])
    return float(low), float(high)


def measure(kind: str, count: int, share: float, repeats: int, rng: np.random.Generator) -> dict[str, object]:
    """Measure the coverage of both on the same times."""
    true, took = find_percentile(kind, share), {"ours": 0.0, "bootstrap": 0.0}
    covered, none, by_bootstrap = 0, 0, 0
    for _ in range(repeats):
        samples = draw_times(kind, count, rng)
        began = time.perf_counter()
        interval = percentile_interval(samples, share)
        took["ours"] += time.perf_counter() - began
        if interval is None:
            none += 1
        else:
            covered += interval.low <= true <= interval.high
        began = time.perf_counter()
        low, high = bootstrap_blocks(samples, share, rng)
        took["bootstrap"] += time.perf_counter() - began
        by_bootstrap += low <= true <= high
    given = repeats - none
    return {
        "times": kind,
        "calls": count,
        "percentile": share,
        "ours": covered / given if given else None,
        "too_few_calls": none / repeats,
        "bootstrap": by_bootstrap / repeats,
        "ours_ms": 1e3 * took["ours"] / repeats,
        "bootstrap_ms": 1e3 * took["bootstrap"] / repeats,
    }


def main() -> None:
    """Measure all, print a table, write the file."""
    parser = make_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    watch, rng = Stopwatch(), np.random.default_rng(0)
    rows = [
        measure(kind, count, share, given.repeats, rng)
        for kind in KINDS
        for count in (500, 3000)
        for share in (0.5, 0.99)
    ]
    print_head(["times", "calls", "percentile", "ours", "too few calls", "bootstrap", "ours ms", "bootstrap ms"])
    for row in rows:
        print_row([f"{value:.3f}" if isinstance(value, float) else value for value in row.values()])
    write_result(given.out, watch, {"repeats": given.repeats, "rows": rows})


if __name__ == "__main__":
    main()
