"""Step time of DSKD against plain `kd`: the same models, batch and optimiser, interleaved in one process.

    python tests/benchmarks/step_time.py --out tests/benchmarks/results/step_time.json

A step is what the training loop does between two batches: teacher, student, losses, backward pass,
clipping, update. In each round every method takes one step, in an order that is drawn anew, so that
a machine that slows down slows all of them. The ratio of a round is its DSKD step over its `kd` step;
the figure is the median of these ratios, with a 95 % interval by bootstrap over rounds.
`floor` is the teacher's forward pass and the student's forward and backward pass alone.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dskd_compress.config import DskdMethod, KdMethod, Method, TrainSection
from dskd_compress.data import Preprocessing
from dskd_compress.methods import Pair, create_task
from dskd_compress.provenance import Stopwatch
from dskd_compress.timm_import import import_timm
from dskd_compress.training.optim import create_optimization

PAIRS = [
    ("resnet34", "resnet18", 112, 16),
    ("resnet50", "mobilenetv3_large_100", 112, 16),
    ("vit_small_patch16_224", "vit_tiny_patch16_224", 224, 8),
    ("resnet18", "mobilenetv3_small_050", 32, 64),  # the demo: so small that everything counts
]
CLASSES = 100


def make_step(
    method: Method | None,
    teacher: str,
    student: str,
    size: int,
    batch: int,
    device: torch.device,
    channels_last: bool,
    precision: str,
) -> Callable[[], None]:
    """One training step of a method; None is the floor."""
    timm = import_timm()
    torch.manual_seed(0)
    models = [
        timm.create_model(name, num_classes=CLASSES, **({"img_size": size} if "vit" in name else {}))
        for name in (student, teacher)
    ]
    format = Preprocessing((3, size, size), (0.5,) * 3, (0.5,) * 3, "bicubic", 1.0, "center")
    pair = Pair(models[0], format, models[1], format)
    images = torch.randn(batch, 3, size, size, device=device)
    labels = torch.randint(CLASSES, (batch,), device=device)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = images.contiguous(memory_format=layout)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None}[precision]

    def autocast() -> torch.autocast:
        return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)

    if method is None:
        floor_student, floor_teacher = models[0].to(device), models[1].to(device).eval()
        floor_student.to(memory_format=layout), floor_teacher.to(memory_format=layout)

        def floor() -> None:
            with autocast():
                with torch.no_grad():
                    floor_teacher(images)
                loss = nn.functional.cross_entropy(floor_student(images).float(), labels)
            floor_student.zero_grad(set_to_none=True)
            loss.backward()

        return floor
    task = create_task(method, models[0], pair, label_smoothing=0.0, seed=0, device=device)
    task.to(memory_format=layout)
    task.fit_statistics([images])
    task.train()
    task.progress = 0.5
    optimization = create_optimization(task.module, TrainSection(lr=1e-3), 100)

    def step() -> None:
        with autocast():
            result = task(images, labels)
        optimization.optimizer.zero_grad(set_to_none=True)
        loss: Tensor = result["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(task.module.parameters(), 5.0)
        optimization.optimizer.step()

    return step


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


def main() -> None:
    """Measure every pair, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, help="images a step, instead of the pair's own")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    device = torch.device(args.device)
    watch = Stopwatch()
    rows = []
    print("| pair | size | batch | kd ms | floor / kd | dskd vector / kd | dskd map / kd |")
    print("|---|---|---|---|---|---|---|")
    for teacher, student, size, own_batch in PAIRS:
        batch = args.batch or own_batch
        # The class token's head does not read the map: such a pair has the vector tap only.
        taps = ["vector"] if "vit" in teacher else ["vector", "map"]
        methods: dict[str, Method | None] = {"floor": None, "kd": KdMethod()}
        methods |= {f"dskd_{tap}": DskdMethod.model_validate({"tap": tap}) for tap in taps}
        settings = (teacher, student, size, batch, device, args.channels_last, args.precision)
        steps = {name: make_step(method, *settings) for name, method in methods.items()}
        seconds = measure(steps, args.rounds, device)
        ratios = {name: ratio_with_interval(seconds[name], seconds["kd"]) for name in steps if name != "kd"}
        shown = [
            f"{r['value']:.3f} ({r['low']:.3f}-{r['high']:.3f})" if (r := ratios.get(name)) else "-"
            for name in ("floor", "dskd_vector", "dskd_map")
        ]
        kd_ms = 1e3 * float(np.median(seconds["kd"]))
        print(f"| {teacher} > {student} | {size} | {batch} | {kd_ms:.1f} | {' | '.join(shown)} |", flush=True)
        rows.append(
            {
                "teacher": teacher,
                "student": student,
                "size": size,
                "batch": batch,
                "precision": args.precision,
                "channels_last": args.channels_last,
                "ratio_to_kd": ratios,
                "seconds": seconds,
            }
        )
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
