"""Overhead of timing: the loop of `benchmark` and a bare loop of `session.run`, interleaved in one process.

    python benchmarks/harness_overhead.py --out benchmarks/results/harness_overhead.json

Two figures: the time of the loop itself per call, from `measure_latency` over an empty function, and the ratio of
the p50 that it reports for a Runner to that of a bare loop around `session.run`, on a model of a millisecond, from
blocks of calls in a random order.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
from measurement import make_parser, write_result
from millisecond_model import conv_chain, image

from dskd_export.benchmark.statistics import mean_interval
from dskd_export.benchmark.timing import measure_latency
from dskd_export.provenance import Stopwatch
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner


def run_bare_loop(session: ort.InferenceSession, feeds: dict[str, np.ndarray], calls: int) -> float:
    """Measure the median seconds of a call with the least code."""
    times = np.empty(calls)
    for index in range(calls):
        began = time.perf_counter()
        session.run(None, feeds)
        times[index] = time.perf_counter() - began
    return float(np.median(times))


def run_harness(runner: OnnxRuntimeRunner, feeds: dict[str, np.ndarray], calls: int) -> float:
    """Measure the median seconds of a call as `benchmark` does."""
    timing = measure_latency(
        lambda: runner.infer(feeds), min_seconds=0, min_iterations=calls, max_warmup_seconds=1e-3
    )
    return timing.latency.p50_ms / 1e3


def measure_loop_s(calls: int) -> float:
    """Measure the seconds per call of `measure_latency` itself, without the measured call."""
    began = time.perf_counter()
    timing = measure_latency(lambda: None, min_seconds=0, min_iterations=calls, max_warmup_seconds=1e-3)
    return (time.perf_counter() - began - float(timing.samples_s.sum())) / calls


def main() -> None:
    """Measure, print a table, write the file."""
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--calls", type=int, default=40)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    watch, model, feeds, rng = Stopwatch(), conv_chain(10), {"input": image()}, np.random.default_rng(0)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    ratios, bare_s, extra_us = [], [], []
    with OnnxRuntimeRunner(model, threads=1) as runner:
        for _ in range(20):
            session.run(None, feeds)
            runner.infer(feeds)
        for _ in range(given.rounds):
            times = {}
            for which in rng.permutation(2):
                times[int(which)] = (
                    run_harness(runner, feeds, given.calls)
                    if which
                    else run_bare_loop(session, feeds, given.calls)
                )
            ratios.append(times[1] / times[0])
            bare_s.append(times[0])
            extra_us.append(1e6 * (times[1] - times[0]))
    loop_us = [1e6 * measure_loop_s(20_000) for _ in range(20)]
    interval = mean_interval(np.log(np.array(ratios)))
    assert interval is not None
    row = {
        "rounds": given.rounds,
        "calls": given.calls,
        "bare_p50_ms": 1e3 * float(np.median(bare_s)),
        "ratio": float(np.exp(interval.value)),
        "ratio_low": float(np.exp(interval.low)),
        "ratio_high": float(np.exp(interval.high)),
        "ratio_median": float(np.median(ratios)),
        "more_than_bare_us": float(np.median(extra_us)),
        "loop_us": float(np.median(loop_us)),
    }
    print(json.dumps(row, indent=2))
    write_result(given.out, watch, {**row})


if __name__ == "__main__":
    main()
