"""How often the verdict on two models is right: one against itself, and against one that is 10 % longer.

    python benchmarks/ab_verdict.py --trials 100 --out benchmarks/results/ab_verdict.json

The models are chains of equal convolutions, ten and eleven of them: the second takes 10 % more arithmetic. Each
trial is what `dskd-compress ab` does for a model: both sessions open, one thread, blocks in a drawn order.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from millisecond_model import conv_chain, image

from dskd_export.benchmark.ab_test import estimate_ratio, interleave, judge_ratio
from dskd_export.files.atomic import write_atomic
from dskd_export.provenance import Stopwatch
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner

PAIRS = {"itself": (10, 10), "10 % longer": (10, 11)}


def main() -> None:
    """Run all trials, print a table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each trial")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    watch, feeds, rows = Stopwatch(), {"input": image()}, []
    for name, (first, second) in PAIRS.items():
        with (
            OnnxRuntimeRunner(conv_chain(first), threads=1) as one,
            OnnxRuntimeRunner(conv_chain(second), threads=1) as other,
        ):
            ratios = []
            for trial in range(given.trials):
                times = interleave(
                    lambda one=one: one.infer(feeds),
                    lambda other=other: other.infer(feeds),
                    min_seconds=given.seconds,
                    block_seconds=given.seconds / 60,
                    seed=trial,
                )
                ratios.append(estimate_ratio(times))
        verdicts = Counter(judge_ratio(ratio) for ratio in ratios)
        values = [ratio.value for ratio in ratios]
        rows.append(
            {
                "second": name,
                "trials": given.trials,
                "verdicts": dict(verdicts),
                "ratio_median": float(np.median(values)),
                "ratio_least": min(values),
                "ratio_most": max(values),
            }
        )
        print(name, dict(verdicts), f"ratio {np.median(values):.4f} ({min(values):.4f} to {max(values):.4f})")
    if given.out is not None:
        provenance = watch.provenance(seed=0, device="cpu", recipe_sha256="")
        provenance = provenance.model_copy(update={"command": shlex.join(["python", *sys.argv])})
        document = {"seconds": given.seconds, "rows": rows, "provenance": provenance.model_dump(mode="json")}
        write_atomic(given.out, json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
