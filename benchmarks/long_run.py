"""One long training of each method, alone in its process: does a step stay as fast, and what memory is taken?"""

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
from training_step import Setting, make_step, methods_of

WINDOW = 50  # steps to each side of the one that is looked at


def train(name: str, setting: Setting, steps: int, threads: int) -> dict[str, Any]:
    """Seconds of every step, and the peak memory in bytes.

    Memory is the process's largest resident set on a CPU, with Python and the libraries in it, and
    the most that tensors took on a GPU.
    """
    torch.set_num_threads(threads)
    cuda = setting.device.startswith("cuda")
    step = make_step(methods_of(setting)[name], setting)
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


def window_median(seconds: list[float], step: int) -> float:
    """Median over the steps around one of them; the first ten, which warm up, never count."""
    return float(np.median(seconds[max(10, step - WINDOW) : step + WINDOW]))


def measure_long(setting: Setting, early: int, late: int, threads: int) -> dict[str, Any]:
    """All methods of a pair, one after the other; prints a row for each as it ends."""
    found: dict[str, Any] = {}
    names = [name for name in methods_of(setting) if name != "floor"]
    for name in names:  # kd comes first: the others are shown relative to it
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            run = pool.submit(train, name, setting, late, threads).result()
        times = [window_median(run["seconds"], step) for step in (early, late)]
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
        print(f"| {' | '.join(cells)} |", flush=True)
    return {**asdict(setting), "early": early, "late": late, "methods": found}
