"""Two benchmarks of one model after each other, in processes of their own: how far apart are their medians?

    python benchmarks/repeatability.py --out benchmarks/results/repeatability.json

Each process opens the model of a millisecond on one thread and measures it as `benchmark` does: warm-up until the
rate is steady, then three seconds. Pairs of processes, one right after the other.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

from dskd_export.files.atomic import write_atomic
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


def measured() -> dict[str, object]:
    """One benchmark in a process of its own."""
    command = [sys.executable, "-c", MEASURE, str(Path(__file__).parent)]
    return dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def main() -> None:
    """Measure all pairs, print a table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    watch = Stopwatch()
    pairs = [(measured(), measured()) for _ in range(given.pairs)]
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
    if given.out is not None:
        provenance = watch.provenance(seed=0, device="cpu", recipe_sha256="")
        provenance = provenance.model_copy(update={"command": shlex.join(["python", *sys.argv])})
        document = {"rows": rows, "provenance": provenance.model_dump(mode="json")}
        write_atomic(given.out, json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
