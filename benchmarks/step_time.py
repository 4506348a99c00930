"""Step time of DSKD and DiffKD relative to plain `kd`, and over a long run.

    python benchmarks/step_time.py --out benchmarks/results/step_time.json
    python benchmarks/step_time.py --flat --out benchmarks/results/long_run.json
    python benchmarks/step_time.py --pairs resnet34:resnet18:112:16 --rounds 50

A step is the work of the training loop between two batches: teacher, student, losses, backward pass,
clipping, update. In each round every method takes one step, in a random order, so that
a slower machine slows all of them. The ratio of a round is its step over its `kd` step;
the figure is the median of these ratios, with a 95 % interval by bootstrap over rounds.
`floor` is the teacher's forward pass and the student's forward and backward pass alone.

With --flat each method trains alone in a separate process. Printed are the time of a step at step 100
and at step 2,000 (median over 50 steps before and after, and before the end), and the peak memory.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from long_run import measure_long
from measurement import format_ratio, make_parser, print_head, print_row, ratio_with_interval, write_result
from training_step import Setting, list_methods, make_step

from dskd_export.provenance import Stopwatch

PAIRS = [
    "resnet34:resnet18:112:16",
    "resnet50:mobilenetv3_large_100:112:16",
    "vit_small_patch16_224:vit_tiny_patch16_224:224:8",
    "resnet18:mobilenetv3_small_050:32:64",  # the demo: small enough that all overhead shows
]
COLUMNS = ["floor", "dskd_vector", "dskd_map", "diffkd_vector", "diffkd_map"]
COMPARED = {"diffkd_vector": "dskd_vector", "diffkd_map": "dskd_map"}


def measure(steps: dict[str, Callable[[], None]], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Measure the seconds of every step, round by round, after three warm-up rounds."""
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


def measure_rounds(setting: Setting, rounds: int) -> dict[str, Any]:
    """Measure all methods of a pair, interleaved, and print its row."""
    steps = {name: make_step(method, setting) for name, method in list_methods(setting).items()}
    seconds = measure(steps, rounds, torch.device(setting.device))
    to_kd = {name: ratio_with_interval(seconds[name], seconds["kd"]) for name in steps if name != "kd"}
    to_dskd = {
        name: ratio_with_interval(seconds[name], seconds[other])
        for name, other in COMPARED.items()
        if name in seconds
    }
    ratios = [to_kd.get(name) for name in COLUMNS] + [to_dskd.get(name) for name in COMPARED]
    kd_ms = f"{1e3 * float(np.median(seconds['kd'])):.1f}"
    pair = f"{setting.teacher} > {setting.student}"
    print_row([pair, setting.size, setting.batch, kd_ms, *map(format_ratio, ratios)])
    return {**asdict(setting), "ratio_to_kd": to_kd, "diffkd_over_dskd": to_dskd, "seconds": seconds}


def main() -> None:
    """Measure every pair, print a table, write the JSON."""
    parser = make_parser(__doc__)
    parser.add_argument("--pairs", nargs="+", default=PAIRS, metavar="TEACHER:STUDENT:SIZE:BATCH")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--flat", action="store_true", help="one long run of each method, with its peak memory")
    parser.add_argument("--steps", type=int, nargs=2, default=(100, 2000), help="with --flat: early and last step")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, help="images per step instead of those of the pair")
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
    write_result(args.out, watch, {"threads": torch.get_num_threads(), "rows": rows}, args.device)


if __name__ == "__main__":
    main()
