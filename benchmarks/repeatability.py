"""Difference of the medians of two benchmarks of one model, one after the other in separate processes.

    python benchmarks/repeatability.py --out benchmarks/results/repeatability.json

Each process opens the model of a millisecond on one thread and measures it as `benchmark` does: warm-up until the
rate is steady, then three seconds. Pairs of processes, one right after the other.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from measurement import make_parser, write_result

from dskd_export.provenance import Stopwatch

MEASURE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from millisecond_model import conv_chain, image
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner
from dskd_export.benchmark.timing import measure_latency
feeds = {"input": image()}
with OnnxRuntimeRunner(conv_chain(10), threads=1) as runner:
    call = lambda: runner.infer(feeds)
    latency = measure_latency(call, min_seconds=3.0, min_iterations=50, max_warmup_seconds=10.0).latency
print(latency.model_dump_json())
"""


def run_benchmark() -> dict[str, object]:
    """Run one benchmark in a separate process."""
    command = [sys.executable, "-c", MEASURE, str(Path(__file__).parent)]
    return dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def main() -> None:
    """Measure all pairs, print a table, write the file."""
    parser = make_parser(__doc__)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    watch = Stopwatch()
    pairs = [(run_benchmark(), run_benchmark()) for _ in range(given.pairs)]
    rows = [
        {
            "p50_ms": [one["p50_ms"], other["p50_ms"]],
            "apart": abs(float(other["p50_ms"]) / float(one["p50_ms"]) - 1),  # type: ignore[arg-type]
            "stable": [one["stable"], other["stable"]],
            "reasons": [one["reason"], other["reason"]],
        }
        for one, other in pairs
    ]
    for row in rows:
        print(row)
    apart = [float(row["apart"]) for row in rows]  # type: ignore[arg-type]
    print(f"apart: median {100 * np.median(apart):.2f} %, most {100 * max(apart):.2f} %")
    write_result(given.out, watch, {"rows": rows})


if __name__ == "__main__":
    main()
