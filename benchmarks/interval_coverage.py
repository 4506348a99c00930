"""Which interval of a percentile covers the truth? Ours, and a bootstrap of moving blocks, on known distributions.

    python benchmarks/interval_coverage.py --out benchmarks/results/interval_coverage.json

Times are lognormal (sigma 0.25), independent or autocorrelated (AR(1) of the logarithm), or of two modes. The
bootstrap draws blocks of 2 N^(1/3) calls, 400 times. What is counted: how often an interval of nominal 95 %
holds the true percentile; how often there are too few calls for one; milliseconds for one interval.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

import numpy as np
from scipy import optimize, signal, stats

from dskd_export.benchmark.statistics import percentile_interval
from dskd_export.files.atomic import write_atomic
from dskd_export.provenance import Stopwatch

KINDS = ("independent", "two modes", "AR(1) 0.5", "AR(1) 0.9")
SIGMA, SLOWER, SHARE, WIDTH = 0.25, 1.6, 0.2, 0.05


def times(kind: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Times of calls, in order."""
    if kind == "two modes":
        return np.where(rng.random(count) < SHARE, SLOWER, 1.0) * np.exp(WIDTH * rng.normal(size=count))
    phi = float(kind.split()[1]) if kind.startswith("AR") else 0.0
    noise = np.sqrt(1 - phi**2) * rng.normal(size=count + 200)
    return np.exp(SIGMA * signal.lfilter([1], [1, -phi], noise)[200:])


def truth(kind: str, share: float) -> float:
    """The percentile of the distribution itself."""
    if kind != "two modes":
        return float(np.exp(SIGMA * stats.norm.ppf(share)))

    def above(x: float) -> float:
        fast, slow = (stats.norm.cdf(np.log(x / mode) / WIDTH) for mode in (1.0, SLOWER))
        return (1 - SHARE) * fast + SHARE * slow - share

    return float(optimize.brentq(above, 0.5, 3))


def block_bootstrap(
    samples: np.ndarray, share: float, rng: np.random.Generator, draws: int = 400
) -> tuple[float, float]:
    """The 2.5 and 97.5 % quantiles of a percentile over resampled blocks (Künsch 1989)."""
    count = len(samples)
    block = round(2 * count ** (1 / 3))
    starts = rng.integers(0, count - block + 1, size=(draws, -(-count // block)))
    index = (starts[:, :, None] + np.arange(block)).reshape(draws, -1)[:, :count]
    low, high = np.quantile(np.quantile(samples[index], share, axis=1), [0.025, 0.975])
    return float(low), float(high)


def measure(kind: str, count: int, share: float, repeats: int, rng: np.random.Generator) -> dict[str, object]:
    """Coverage of both on the same times."""
    true, took = truth(kind, share), {"ours": 0.0, "bootstrap": 0.0}
    covered, none, by_bootstrap = 0, 0, 0
    for _ in range(repeats):
        samples = times(kind, count, rng)
        began = time.perf_counter()
        interval = percentile_interval(samples, share)
        took["ours"] += time.perf_counter() - began
        if interval is None:
            none += 1
        else:
            covered += interval.low <= true <= interval.high
        began = time.perf_counter()
        low, high = block_bootstrap(samples, share, rng)
        took["bootstrap"] += time.perf_counter() - began
        by_bootstrap += low <= true <= high
    told = repeats - none
    return {
        "times": kind,
        "calls": count,
        "percentile": share,
        "ours": covered / told if told else None,
        "too_few_calls": none / repeats,
        "bootstrap": by_bootstrap / repeats,
        "ours_ms": 1e3 * took["ours"] / repeats,
        "bootstrap_ms": 1e3 * took["bootstrap"] / repeats,
    }


def main() -> None:
    """Measure all, print a table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    print("| times | calls | percentile | ours | too few calls | bootstrap | ours ms | bootstrap ms |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        values = [f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()]
        print(f"| {' | '.join(values)} |")
    if given.out is not None:
        provenance = watch.provenance(seed=0, device="cpu", recipe_sha256="")
        provenance = provenance.model_copy(update={"command": shlex.join(["python", *sys.argv])})
        document = {"repeats": given.repeats, "rows": rows, "provenance": provenance.model_dump(mode="json")}
        write_atomic(given.out, json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
