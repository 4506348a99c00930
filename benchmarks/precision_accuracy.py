"""Accuracy of each precision of a real MobileNetV2 on real images, with the commands of a user.

    python benchmarks/precision_accuracy.py --out benchmarks/results/precision_accuracy.json

MobileNetV2 with ImageNet weights and 1,300 labelled images of ImageNet. These also serve for calibration, so
they are split in two: each half calibrates the models that the other half evaluates, and the counts are added.
So every image is judged once, by models that never saw it. Each half runs
`export --precision auto --target hopper` (all precisions) and `validate`, in separate processes.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import torch
from gate_support import make_mobilenet_run, shared_data
from measurement import MISSING_IMAGES, make_parser, print_head, print_row, write_result

from dskd_compress.run_folder import RunFolder
from dskd_export.documents.base import read_document
from dskd_export.documents.export import ExportDocument
from dskd_export.documents.validation import ValidationDocument
from dskd_export.provenance import Stopwatch
from dskd_export.validation.intervals import paired_interval

CROP = 224 / 227  # the images come at 227 px
HALVES = {"even": slice(0, None, 2), "odd": slice(1, None, 2)}


def run_tool(*words: str) -> None:
    """Run the tool; exit code 5 is a verdict, no failure."""
    done = subprocess.run([sys.executable, "-m", "dskd_compress", *words], check=False)
    if done.returncode not in (0, 5):
        raise SystemExit(f"dskd-compress {shlex.join(words)} ended with {done.returncode}")


def measure_half(run: RunFolder, quantize: list[str]) -> tuple[ExportDocument, ValidationDocument]:
    """Export in all precisions and validate."""
    path = str(run.path)
    flags = [part for one in quantize for part in ("--set", one)]
    run_tool("export", path, "--precision", "auto", "--target", "hopper", *flags)
    run_tool("validate", path)
    return (
        read_document(run / "export.json", ExportDocument),
        read_document(run / "validation.json", ValidationDocument),
    )


def join_halves(halves: list[ValidationDocument]) -> dict[str, dict[str, Any]]:
    """Add up counts and shares of the halves by runner; the drop has the interval of paired shares."""
    reference = halves[0].reference
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for half in halves:
        facts = half.accuracy[reference]
        counts[reference]["images"] += facts.images
        counts[reference]["right"] += round(facts.top1.value * facts.images)
        for one in half.judgements:
            assert one.accuracy is not None, one.reason
            for name in ("images", "lost", "gained"):
                counts[one.runner][name] += getattr(one.accuracy, name)
            counts[one.runner]["right"] += round(half.accuracy[one.runner].top1.value * one.accuracy.images)
    rows: dict[str, dict[str, Any]] = {}
    for runner, found in counts.items():
        rows[runner] = {**found, "top1": found["right"] / found["images"]}
        if runner != reference:
            interval = paired_interval(found["lost"], found["gained"], found["images"])
            rows[runner]["drop"] = interval.model_dump()
    return rows


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=int, help="number of images")
    parser.add_argument("--set", action="append", default=[], help="passed to `export`, for example a method")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    data = shared_data() or parser.error(MISSING_IMAGES)
    watch = Stopwatch()
    exports, validations = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, train in HALVES.items():
            place = Path(folder) / name
            place.mkdir()
            run = make_mobilenet_run(
                place, data, images=args.images, train=train, crop_pct=CROP, interpolation="bicubic"
            )
            export, validation = measure_half(run, args.set)
            exports.append(export)
            validations.append(validation)
    rows = join_halves(validations)
    print_head(
        ["runner", "images", "top-1 %", "lost", "gained", "drop, points (95 %)", "size MB", "kept, by half"]
    )
    for runner, row in rows.items():
        precision = runner.rpartition(":")[2]
        facts = [one for export in exports for one in export.precisions if one.precision == precision]
        drop = row.get("drop")
        shown = f"{100 * drop['value']:.2f} ({100 * drop['low']:.2f} to {100 * drop['high']:.2f})" if drop else ""
        kept = ", ".join(str(len(one.kept)) for one in facts) if runner != validations[0].reference else ""
        size = f"{facts[0].size_mb:.1f}" if facts and drop else ""
        cells = [runner, row["images"], f"{100 * row['top1']:.2f}", row.get("lost", ""), row.get("gained", "")]
        print_row([*cells, shown, size, kept])
    write_result(
        args.out,
        watch,
        {
            "threads": torch.get_num_threads(),
            "runners": rows,
            "halves": [
                {
                    "precisions": [one.model_dump(mode="json") for one in export.precisions],
                    "judgements": [one.model_dump(mode="json") for one in validation.judgements],
                }
                for export, validation in zip(exports, validations, strict=True)
            ],
        },
    )


if __name__ == "__main__":
    main()
