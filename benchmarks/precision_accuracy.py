"""What each precision costs a real MobileNetV2 on real images, by the commands that a user runs.

    python benchmarks/precision_accuracy.py --out benchmarks/results/precision_accuracy.json

MobileNetV2 with ImageNet weights and 1,300 labelled images of ImageNet. Calibration takes training images and
there are none but these, so they are split in two: every half is calibrated and searched on, and the other one
evaluated, and the counts of both are added. So every image is judged once, by models that never saw it.
Each half is `export --precision auto --target hopper` (all precisions) and `validate`, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
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

from dskd_compress.run_folder import RunFolder
from dskd_export.documents.base import read_document
from dskd_export.documents.export import ExportDocument
from dskd_export.documents.validation import ValidationDocument
from dskd_export.provenance import Stopwatch
from dskd_export.validation.intervals import paired_interval

CROP = 224 / 227  # the images come at 227 px
HALVES = {"even": slice(0, None, 2), "odd": slice(1, None, 2)}


def command(*words: str) -> None:
    """Run the tool; its exit code 5 is a verdict and no failure."""
    done = subprocess.run([sys.executable, "-m", "dskd_compress", *words], check=False)
    if done.returncode not in (0, 5):
        raise SystemExit(f"dskd-compress {shlex.join(words)} ended with {done.returncode}")


def measure_half(run: RunFolder, quantize: list[str]) -> tuple[ExportDocument, ValidationDocument]:
    """Export in all precisions and validate."""
    path = str(run.path)
    flags = [part for one in quantize for part in ("--set", one)]
    command("export", path, "--precision", "auto", "--target", "hopper", *flags)
    command("validate", path)
    return (
        read_document(run / "export.json", ExportDocument),
        read_document(run / "validation.json", ValidationDocument),
    )


def joined(halves: list[ValidationDocument]) -> dict[str, dict[str, Any]]:
    """Runner -> counts and shares over the images of all halves; drop with the interval of paired shares."""
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, help="only the first so many")
    parser.add_argument("--set", action="append", default=[], help="passed on to `export`, for example a method")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    data = shared_data()
    if data is None:
        parser.error("the real images are not here: DSKD_TEST_DATA names their folder")
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
    rows = joined(validations)
    print("| runner | images | top-1 % | lost | gained | drop, points (95 %) | size MB | kept, of the halves |")
    print("|---|---|---|---|---|---|---|---|")
    for runner, row in rows.items():
        precision = runner.rpartition(":")[2]
        facts = [one for export in exports for one in export.precisions if one.precision == precision]
        drop = row.get("drop")
        shown = f"{100 * drop['value']:.2f} ({100 * drop['low']:.2f} to {100 * drop['high']:.2f})" if drop else ""
        kept = ", ".join(str(len(one.kept)) for one in facts) if runner != validations[0].reference else ""
        size = f"{facts[0].size_mb:.1f}" if facts and drop else ""
        cells = [runner, row["images"], f"{100 * row['top1']:.2f}", row.get("lost", ""), row.get("gained", "")]
        print(f"| {' | '.join(map(str, [*cells, shown, size, kept]))} |", flush=True)
    if args.out is not None:
        provenance = watch.provenance(seed=0, device="cpu", recipe_sha256="")
        provenance = provenance.model_copy(update={"command": shlex.join(["python", *sys.argv])})
        document = {
            "threads": torch.get_num_threads(),
            "runners": rows,
            "halves": [
                {
                    "precisions": [one.model_dump(mode="json") for one in export.precisions],
                    "judgements": [one.model_dump(mode="json") for one in validation.judgements],
                }
                for export, validation in zip(exports, validations, strict=True)
            ],
            "provenance": provenance.model_dump(mode="json"),
        }
        args.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
