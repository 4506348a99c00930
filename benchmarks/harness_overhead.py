"""What timing costs: the loop of `benchmark` against a bare loop of `session.run`, in turns in one process.

    python benchmarks/harness_overhead.py --out benchmarks/results/harness_overhead.json

Two figures. What the loop takes for a call beyond the call itself: `measure_latency` over a function that does
nothing. And the ratio of the p50 that it reports over a Runner to that of a bare loop around `session.run`, on a
model of a millisecond, from blocks of calls in an order that is drawn anew.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
from millisecond_model import conv_chain, image

from dskd_export.benchmark.statistics import mean_interval
from dskd_export.benchmark.timing import measure_latency
from dskd_export.files.atomic import write_atomic
from dskd_export.provenance import Stopwatch
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner


def bare_loop(session: ort.InferenceSession, feeds: dict[str, np.ndarray], calls: int) -> float:
    """Median seconds of a call, by the least code that can tell."""
    times = np.empty(calls)
    for index in range(calls):
        began = time.perf_counter()
        session.run(None, feeds)
        times[index] = time.perf_counter() - began
    return float(np.median(times))


def harness(runner: OnnxRuntimeRunner, feeds: dict[str, np.ndarray], calls: int) -> float:
    """Median seconds of a call, as `benchmark` measures it."""
    timing = measure_latency(
        lambda: runner.infer(feeds), min_seconds=0, min_iterations=calls, max_warmup_seconds=1e-3
    )
    return timing.latency.p50_ms / 1e3


def nothing_s(calls: int) -> float:
    """Seconds that `measure_latency` itself takes for a call, beyond what it measures."""
    began = time.perf_counter()
    timing = measure_latency(lambda: None, min_seconds=0, min_iterations=calls, max_warmup_seconds=1e-3)
    return (time.perf_counter() - began - float(timing.samples_s.sum())) / calls


def main() -> None:
    """Measure, print a table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
                    harness(runner, feeds, given.calls) if which else bare_loop(session, feeds, given.calls)
                )
            ratios.append(times[1] / times[0])
            bare_s.append(times[0])
            extra_us.append(1e6 * (times[1] - times[0]))
    loop_us = [1e6 * nothing_s(20_000) for _ in range(20)]
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
    if given.out is not None:
        provenance = watch.provenance(seed=0, device="cpu", recipe_sha256="")
        provenance = provenance.model_copy(update={"command": shlex.join(["python", *sys.argv])})
        document = {**row, "provenance": provenance.model_dump(mode="json")}
        write_atomic(given.out, json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
