"""Time of `validate` relative to the calls of the models that it compares.

    python benchmarks/validate_overhead.py --rounds 5 --out benchmarks/results/validate_overhead.json

MobileNetV2 at 224 px with ImageNet weights on real JPEG-sized images, torch as the reference. Three things
are timed in one process, round by round:

- `runners`: every model called once with every image, the inputs ready in memory, in the batches of `validate`;
- `images`: the same from decoded images, prepared once for all of them: the time of a bare loop over the images;
- `validate`: the whole stage, from opening the bundle to the written verdict: data set and bundle hashed,
  sessions opened, timm's preprocessing and the device's, golden images, other batch sizes, all statistics.

A figure is the median of the rounds' ratios with a 95 % bootstrap interval.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import numpy as np
import torch
from gate_support import add_precisions, make_mobilenet_run, shared_data
from measurement import (
    MISSING_IMAGES,
    format_ratio,
    make_parser,
    print_head,
    print_row,
    ratio_with_interval,
    write_result,
)
from run_support import QUIET

from dskd_compress.config import Recipe
from dskd_compress.data import iter_images
from dskd_compress.run_folder import RunFolder
from dskd_compress.stages.export import run_export
from dskd_compress.stages.setup import open_checked_data
from dskd_compress.stages.validate import run_validate
from dskd_compress.torch_reference import load_torch_student
from dskd_compress.weights import load_trained
from dskd_export.bundle import open_bundle
from dskd_export.provenance import Stopwatch
from dskd_export.runtime.preprocess import preprocess_batch
from dskd_export.validation.models import BATCH, open_models

CASES = {"fp32": ["fp32"], "fp32, fp16, int8": ["fp32", "fp16", "int8"]}


def measure_round(recipe: Recipe, run: RunFolder) -> dict[str, float]:
    """Measure the seconds of each of the three, once."""
    bundle = open_bundle(run.bundle)
    student, info = load_trained(run.weights("student"))
    sets = open_checked_data(recipe, every_class=False)
    images = [image for image, _, _ in iter_images(sets.val, recipe.validation.images, recipe.seed)]
    lots = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    inputs = [preprocess_batch(lot, bundle.spec) for lot in lots]
    seconds = {}
    with ExitStack() as stack:
        load_torch = partial(load_torch_student, student, info, bundle.spec)
        models = open_models(
            bundle, bundle.folder.parent / "engines", recipe.validation, stack, load_torch
        ).distinct
        for model in models:  # the first call of a session allocates
            model.logits(inputs[0])
        began = time.perf_counter()
        for input_BCHW in inputs:
            for model in models:
                model.logits(input_BCHW)
        seconds["runners"] = time.perf_counter() - began
        began = time.perf_counter()
        for lot in lots:
            input_BCHW = preprocess_batch(lot, bundle.spec)
            for model in models:
                model.logits(input_BCHW)
        seconds["images"] = time.perf_counter() - began
    began = time.perf_counter()
    run_validate(recipe, run, QUIET)
    seconds["validate"] = time.perf_counter() - began
    return seconds


def main() -> None:
    """Measure every case, print a table, write the JSON."""
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    data = shared_data() or parser.error(MISSING_IMAGES)
    watch = Stopwatch()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        run = make_mobilenet_run(Path(folder), data, images=args.images)
        run_export(run.read_recipe(), run, QUIET)
        add_precisions(run)
        recipes = {
            name: run.read_recipe([f"validate.precisions={json.dumps(precisions)}"])
            for name, precisions in CASES.items()
        }
        seconds: dict[str, list[dict[str, float]]] = {name: [] for name in CASES}
        for number in range(args.rounds + 1):
            for name, recipe in recipes.items():
                measured = measure_round(recipe, run)
                if number:  # the first one warms the caches
                    seconds[name].append(measured)
    head = ["models next to torch", "images", "runners s", "images s", "validate s"]
    print_head([*head, "validate / runners", "/ images"])
    for name, rounds in seconds.items():
        columns = {part: [one[part] for one in rounds] for part in ("runners", "images", "validate")}
        ratios = {part: ratio_with_interval(columns["validate"], columns[part]) for part in ("runners", "images")}
        times = [f"{float(np.median(values)):.1f}" for values in columns.values()]
        print_row([name, args.images, *times, *map(format_ratio, ratios.values())])
        rows.append({"models": name, "images": args.images, "validate_over": ratios, "seconds": columns})
    write_result(args.out, watch, {"threads": torch.get_num_threads(), "batch": BATCH, "rows": rows})


if __name__ == "__main__":
    main()
