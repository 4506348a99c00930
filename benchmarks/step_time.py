"""Step time of DSKD and DiffKD against plain `kd`, and how both hold over a long run.

    python benchmarks/step_time.py --out benchmarks/results/step_time.json
    python benchmarks/step_time.py --flat --out benchmarks/results/long_run.json
    python benchmarks/step_time.py --pairs resnet34:resnet18:112:16 --rounds 50

A step is what the training loop does between two batches: teacher, student, losses, backward pass,
clipping, update. In each round every method takes one step, in an order that is drawn anew, so that
a machine that slows down slows all of them. The ratio of a round is its step over its `kd` step;
the figure is the median of these ratios, with a 95 % interval by bootstrap over rounds.
`floor` is the teacher's forward pass and the student's forward and backward pass alone.

With --flat each method trains alone in a process of its own. Shown are the time of a step at step 100
and at step 2,000 (median over 50 steps before and after, and before the end), and the peak memory.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from long_run import measure_long
from training_step import Setting, make_step, methods_of

from dskd_export.provenance import Stopwatch

PAIRS = [
    "resnet34:resnet18:112:16",
    "resnet50:mobilenetv3_large_100:112:16",
    "vit_small_patch16_224:vit_tiny_patch16_224:224:8",
    "resnet18:mobilenetv3_small_050:32:64",  # the demo: so small that everything counts
]
COLUMNS = ["floor", "dskd_vector", "dskd_map", "diffkd_vector", "diffkd_map"]
COMPARED = {"diffkd_vector": "dskd_vector", "diffkd_map": "dskd_map"}


def measure(steps: dict[str, Callable[[], None]], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of every step, round by round, after three rounds that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    order = random.Random(0)
    for number in range(rounds + 3):
        for name in order.sample(sorted(steps), len(steps)):
            if device.type == "cuda":
                torch.cuda.synchronize()
            began = time.perf_counter()
            steps[name]()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number >= 3:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio_with_interval(numerator: list[float], denominator: list[float]) -> dict[str, float]:
    """Median of the rounds' ratios, with a 95 % bootstrap interval."""
    ratios = np.array(numerator) / np.array(denominator)
    draws = np.random.default_rng(0).choice(ratios, size=(2000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return {"value": float(np.median(ratios)), "low": float(low), "high": float(high)}


def shown(ratio: dict[str, float] | None) -> str:
    """A ratio with its interval, for the table."""
    return "-" if ratio is None else f"{ratio['value']:.3f} ({ratio['low']:.3f}-{ratio['high']:.3f})"


def measure_rounds(setting: Setting, rounds: int) -> dict[str, Any]:
    """All methods of a pair, interleaved; prints its row."""
    steps = {name: make_step(method, setting) for name, method in methods_of(setting).items()}
    seconds = measure(steps, rounds, torch.device(setting.device))
    to_kd = {name: ratio_with_interval(seconds[name], seconds["kd"]) for name in steps if name != "kd"}
    to_dskd = {
        name: ratio_with_interval(seconds[name], seconds[other])
        for name, other in COMPARED.items()
        if name in seconds
    }
    ratios = [to_kd.get(name) for name in COLUMNS] + [to_dskd.get(name) for name in COMPARED]
    place = f"{setting.teacher} > {setting.student} | {setting.size} | {setting.batch}"
    kd_ms = 1e3 * float(np.median(seconds["kd"]))
    print(f"| {place} | {kd_ms:.1f} | {' | '.join(map(shown, ratios))} |", flush=True)
    return {**asdict(setting), "ratio_to_kd": to_kd, "diffkd_over_dskd": to_dskd, "seconds": seconds}


def print_head(cells: list[str]) -> None:
    """The first two lines of a table."""
    print(f"| {' | '.join(cells)} |\n|{'---|' * len(cells)}", flush=True)


def main() -> None:
    """Measure every pair, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", default=PAIRS, metavar="TEACHER:STUDENT:SIZE:BATCH")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--flat", action="store_true", help="one long run of each method, with its peak memory")
    parser.add_argument("--steps", type=int, nargs=2, default=(100, 2000), help="with --flat: early and last step")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, help="images a step, instead of the pair's own")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    watch = Stopwatch()
    settings = []
    for pair in args.pairs:
        teacher, student, size, batch = pair.split(":")
        how = (args.device, args.precision, args.channels_last)
        settings.append(Setting(teacher, student, int(size), args.batch or int(batch), *how))
    if args.flat:
        early, late = args.steps
        print_head(
            ["pair", "method", f"ms at step {early}", f"ms at step {late}", "ratio", "peak MB", "peak / kd"]
        )
        rows = [measure_long(setting, early, late, torch.get_num_threads()) for setting in settings]
    else:
        head = ["pair", "size", "batch", "kd ms", *(f"{name} / kd" for name in COLUMNS)]
        print_head(head + [f"{name} / {other}" for name, other in COMPARED.items()])
        rows = [measure_rounds(setting, args.rounds) for setting in settings]
    if args.out is not None:
        provenance = watch.provenance(seed=0, device=args.device, recipe_sha256="")
        provenance = provenance.model_copy(update={"command": shlex.join(["python", *sys.argv])})
        document = {
            "threads": torch.get_num_threads(),
            "rows": rows,
            "provenance": provenance.model_dump(mode="json"),
        }
        args.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
