"""Time of the torch-free preprocessing relative to timm's evaluation transform, for a single photograph.

    python benchmarks/preprocess_time.py --out benchmarks/results/preprocess_time.json

The photograph is scikit-learn's china.jpg as a JPEG file of 500x375. `decoded` begins with the RGB image,
`file` with the bytes of the file: `open_image` here, `Image.open(...).convert("RGB")` as in timm's dataset
there. Both end with the normalised float32 array or tensor. Each round runs each of them once, in a random
order; the ratio of a round is ours over timm's, the figure the median over rounds with a 95 % interval by
bootstrap. One thread, as in a process that loads data; times are processor time, which other programs on the
same core do not affect.
"""

from __future__ import annotations

import io
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import numpy as np
import PIL
import torch
from measurement import format_ratio, make_parser, print_head, print_row, ratio_with_interval, write_result
from photo_support import KINDS, photo_paths, read_photo
from PIL import Image

from dskd_compress.timm_import import import_timm
from dskd_export.provenance import Stopwatch
from dskd_export.runtime.images import open_image
from dskd_export.runtime.preprocess import preprocess
from dskd_export.spec import ModelSpec

KEYS = ("interpolation", "crop_mode", "crop_pct", "size")
CASES = [
    ("bicubic", "center", 0.875, 224),
    ("bilinear", "center", 0.875, 224),
    ("bicubic", "center", 1.0, 224),
    ("bicubic", "squash", 1.0, 224),
    ("bicubic", "border", 1.0, 224),
    ("bicubic", "center", 1.0, 384),
]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_ways(interpolation: str, crop_mode: str, crop_pct: float, size: int) -> dict[str, Callable[[], Any]]:
    """Make the four functions that are timed."""
    import_timm()
    from timm.data import create_transform

    settings = {"interpolation": interpolation, "crop_mode": crop_mode, "crop_pct": crop_pct}
    names = {"architecture": "any", "classes": ("a", "b"), "opset": 20, "student_sha256": "0" * 64}
    spec = ModelSpec.model_validate({**settings, **names, "height": size, "width": size, "mean": MEAN, "std": STD})
    transform = create_transform((3, size, size), mean=MEAN, std=STD, **settings)
    content = KINDS["JPEG"](read_photo(photo_paths()[0]).resize((500, 375), Image.Resampling.LANCZOS))
    image = open_image(content)
    np.testing.assert_array_equal(preprocess(image, spec), transform(image).numpy())
    return {
        "ours_decoded": lambda: preprocess(image, spec),
        "timm_decoded": lambda: transform(image),
        "ours_file": lambda: preprocess(open_image(content), spec),
        "timm_file": lambda: transform(Image.open(io.BytesIO(content)).convert("RGB")),
    }


def measure(turns: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Measure the milliseconds of processor time of every call, after ten warm-up rounds."""
    ms: dict[str, list[float]] = {name: [] for name in turns}
    order = random.Random(0)
    for number in range(rounds + 10):
        for name in order.sample(sorted(turns), len(turns)):
            began = time.process_time_ns()
            turns[name]()
            if number >= 10:
                ms[name].append((time.process_time_ns() - began) / 1e6)
    return ms


def main() -> None:
    """Measure all cases, print a table, write the JSON."""
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    watch, rows = Stopwatch(), []
    print_head([*KEYS, "timm decoded ms", "ratio", "timm file ms", "ratio"])
    for case in CASES:
        ms = measure(make_ways(*case), args.rounds)
        ratios = {
            part: ratio_with_interval(ms[f"ours_{part}"], ms[f"timm_{part}"]) for part in ("decoded", "file")
        }
        cells = [
            cell
            for part in ratios
            for cell in (f"{np.median(ms[f'timm_{part}']):.2f}", format_ratio(ratios[part]))
        ]
        print_row([*case, *cells])
        quartiles = {name: np.percentile(times, [25, 50, 75]).round(4).tolist() for name, times in ms.items()}
        rows.append({**dict(zip(KEYS, case, strict=True)), "ours_to_timm": ratios, "quartiles_ms": quartiles})
    write_result(args.out, watch, {"rounds": args.rounds, "pillow": PIL.__version__, "rows": rows})


if __name__ == "__main__":
    main()
