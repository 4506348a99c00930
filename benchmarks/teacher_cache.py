"""Step throughput with a filled teacher cache relative to the same steps without it, interleaved in one process.

    python benchmarks/teacher_cache.py --out benchmarks/results/teacher_cache.json

A step is the work of the training loop between two batches: the teacher or its outputs from the disk, student,
losses, backward pass, clipping, update. Both tasks have the same models, method and batches; in each round
either takes one step, in a random order, so that a slower machine slows both. The figure is the median over
rounds of the step without the cache over the step with it, with a 95 % bootstrap interval. `teacher / student`
is one forward pass over the other, timed in the same rounds.

The batches repeat, so the cache is read from the page cache of the system, as for a data set that fits into
memory. The first batch read, which is also computed for comparison, comes before the rounds.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measurement import format_ratio, make_parser, print_head, print_row, ratio_with_interval, write_result
from step_time import measure
from torch import nn

from dskd_compress.config import DskdMethod, KdMethod, Method, TeacherCacheSection, TrainSection
from dskd_compress.data import Preprocessing
from dskd_compress.methods import MethodTask, Pair, create_task
from dskd_compress.methods.base import StepContext
from dskd_compress.models import state_sha256
from dskd_compress.teachers.cache.disk import open_outputs
from dskd_compress.teachers.cache.key import ImageFacts, describe_outputs
from dskd_compress.teachers.cache.teacher import CachedTeacher
from dskd_compress.timm_import import import_timm
from dskd_compress.training.optim import create_optimization
from dskd_export.provenance import Stopwatch

PAIRS = [
    ("resnet50", "mobilenetv3_small_100", 64, 32),
    ("resnet50", "mobilenetv3_small_050", 32, 64),
    ("resnet34", "mobilenetv3_small_100", 32, 64),  # a teacher that costs less than four students
]
METHODS: dict[str, Method] = {
    "kd": KdMethod(),
    "dskd_vector": DskdMethod.model_validate({"tap": "vector"}),
    "dskd_map": DskdMethod.model_validate({"tap": "map"}),
}
CLASSES, BATCHES = 100, 8


def attach_cache(task: MethodTask, place: Path, size: int, batch: int, device: torch.device) -> None:
    """Attach a cache for `BATCHES` batches to the teacher of a task."""
    assert task.teacher is not None
    images = ImageFacts("random", "none", {"input_size": (3, size, size)}, BATCHES * batch, 1)
    outputs = describe_outputs(
        task.teacher,
        teacher_sha256=state_sha256(task.teacher.model),
        images=images,
        section=TeacherCacheSection(),
        precision="fp32",
        device=device,
    )
    stores = open_outputs(place, outputs, images)

    def keys(epoch: int, number: int) -> Any:
        return np.stack([np.zeros(batch), np.arange(batch) + number * batch], axis=1).astype(np.int64)

    task.teacher = CachedTeacher(task.teacher, stores, keys, images=images.images)


def make_steps(
    teacher: str, student: str, size: int, batch: int, method: Method, place: Path, device: torch.device
) -> dict[str, Callable[[], None]]:
    """Make a step without the cache, one with it, and the two forward passes."""
    timm = import_timm()
    format = Preprocessing((3, size, size), (0.5,) * 3, (0.5,) * 3, "bicubic", 1.0, "center")
    torch.manual_seed(0)
    batches = torch.randn(BATCHES, batch, 3, size, size, device=device)
    labels = torch.randint(CLASSES, (BATCHES, batch), device=device)

    def make_one(cache: bool) -> Callable[[], None]:
        torch.manual_seed(0)
        models = [timm.create_model(name, num_classes=CLASSES) for name in (student, teacher)]
        pair = Pair(models[0], format, models[1], format)
        task = create_task(method, models[0], pair, label_smoothing=0.0, seed=0, device=device)
        task.fit_statistics([batches[0]])
        if cache:
            attach_cache(task, place, size, batch, device)
        task.train()
        optimization = create_optimization(task.module, TrainSection(lr=1e-3), 100)
        numbers = itertools.cycle(range(BATCHES))

        def step() -> None:
            number = next(numbers)
            context = StepContext(progress=0.5, position=(0, number))
            result = task(batches[number], labels[number], context)
            optimization.optimizer.zero_grad(set_to_none=True)
            result["loss"].backward()
            nn.utils.clip_grad_norm_(task.module.parameters(), 5.0)
            optimization.optimizer.step()

        if cache:
            assert isinstance(task.teacher, CachedTeacher)
            for _ in range(BATCHES + 1):  # fill it, and compare once
                step()
            assert (task.teacher.computed, task.teacher.read) == (BATCHES * batch, batch)
        return step

    teacher_model = timm.create_model(teacher, num_classes=CLASSES).to(device).eval()
    student_model = timm.create_model(student, num_classes=CLASSES).to(device).train()

    def teacher_forward() -> None:
        with torch.no_grad():
            teacher_model(batches[0])

    def student_forward() -> None:
        student_model(batches[0])

    return {
        "without": make_one(False),
        "with": make_one(True),
        "teacher": teacher_forward,
        "student": student_forward,
    }


def main() -> None:
    """Measure every pair and method, print a table, write the JSON."""
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    device = torch.device(args.device)
    watch = Stopwatch()
    rows = []
    print_head(["pair", "size", "batch", "method", "teacher / student", "without ms", "with ms", "throughput"])
    for (teacher, student, size, batch), (name, method) in itertools.product(PAIRS, METHODS.items()):
        with tempfile.TemporaryDirectory() as place:
            steps = make_steps(teacher, student, size, batch, method, Path(place), device)
            seconds = measure(steps, args.rounds, device)
        forward = ratio_with_interval(seconds["teacher"], seconds["student"])
        throughput = ratio_with_interval(seconds["without"], seconds["with"])
        shown = [format_ratio(ratio, digits=2) for ratio in (forward, throughput)]
        times = [f"{1e3 * float(np.median(seconds[which])):.1f}" for which in ("without", "with")]
        print_row([f"{teacher}, {student}", size, batch, name, shown[0], *times, shown[1]])
        rows.append(
            {
                "teacher": teacher,
                "student": student,
                "size": size,
                "batch": batch,
                "method": name,
                "features": "float16",
                "teacher_forward_to_student_forward": forward,
                "throughput": throughput,
                "seconds": seconds,
            }
        )
    write_result(args.out, watch, {"threads": torch.get_num_threads(), "rows": rows}, args.device)


if __name__ == "__main__":
    main()
