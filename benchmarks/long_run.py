"""One long training of each method in a separate process: time of a step over the run, and peak memory."""

from __future__ import annotations

import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from measurement import print_row
from training_step import Setting, list_methods, make_step

WINDOW = 50  # steps on each side of the measured one


def train(name: str, setting: Setting, steps: int, threads: int) -> dict[str, Any]:
    """Measure the seconds of every step, and the peak memory in bytes.

    Memory is the largest resident set of the process on a CPU, Python and libraries included, and the peak
    allocated by tensors on a GPU.
    """
    torch.set_num_threads(threads)
    cuda = setting.device.startswith("cuda")
    step = make_step(list_methods(setting)[name], setting)
    seconds = []
    for _ in range(steps):
        began = time.perf_counter()
        step()
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"seconds": seconds, "peak_bytes": torch.cuda.max_memory_allocated() if cuda else resident}


def median_around(seconds: list[float], step: int) -> float:
    """Compute the median over the steps around one of them, without the first ten, the warm-up."""
    return float(np.median(seconds[max(10, step - WINDOW) : step + WINDOW]))


def measure_long(setting: Setting, early: int, late: int, threads: int) -> dict[str, Any]:
    """Measure all methods of a pair, one after the other, and print a row for each."""
    found: dict[str, Any] = {}
    names = [name for name in list_methods(setting) if name != "floor"]
    for name in names:  # kd first: the others are printed relative to it
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            run = pool.submit(train, name, setting, late, threads).result()
        times = [median_around(run["seconds"], step) for step in (early, late)]
        found[name] = {**run, "early_seconds": times[0], "late_seconds": times[1]}
        memory = run["peak_bytes"]
        cells = [
            f"{setting.teacher} > {setting.student}",
            name,
            *(f"{1e3 * value:.1f}" for value in times),
            f"{times[1] / times[0]:.3f}",
            f"{memory / 1e6:.0f}",
            f"{memory / found['kd']['peak_bytes']:.3f}",
        ]
        print_row(cells)
    return {**asdict(setting), "early": early, "late": late, "methods": found}
