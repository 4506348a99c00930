"""Time of an export and of an int8 quantisation, for a CNN of 25 million parameters.

    python benchmarks/export_time.py --rounds 3 --out benchmarks/results/export_time.json

resnet50 at 224 px, random weights. `torch`: the bare `torch.onnx.export` with a free batch, written to a file.
`export`: `onnx_from_torch`, with its surgery, optimisers and checks against torch at three batches, written to a
file. Both alternate in one process; the figure is the median of the rounds' ratios with a 95 % bootstrap
interval. Then int8 once, calibrated on 512 images: without and with the search for costly layers.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import numpy as np
import torch
from gate_support import read_imagenet, shared_data
from measurement import MISSING_IMAGES, format_ratio, make_parser, ratio_with_interval, write_result
from PIL import Image
from torch import nn

from dskd_compress.config import DataSection, ExportSection, StudentSection
from dskd_compress.config.stages import CalibrationSection, QuantizeSection
from dskd_compress.data import resolve_preprocessing
from dskd_compress.models import create_model
from dskd_compress.precisions import collect_settings
from dskd_compress.stages.export import make_spec
from dskd_compress.weights import WeightsInfo
from dskd_export.onnx_from_torch import onnx_from_torch
from dskd_export.precision.build import build_precision
from dskd_export.precision.calibration import Calibration
from dskd_export.provenance import Stopwatch
from dskd_export.runtime.images import pixel_sha256
from dskd_export.runtime.preprocess import preprocess_batch
from dskd_export.spec import ModelSpec

NAME = "resnet50"


def export_bare(model: nn.Module, spec: ModelSpec, folder: Path) -> None:
    """Export as a user would without this tool."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.zeros(spec.input_shape(2)),),
            folder / "bare.onnx",
            dynamo=True,
            opset_version=spec.opset,
            dynamic_shapes=({0: "batch"},),
            external_data=False,
            verbose=False,
        )


def main() -> None:
    """Measure, print, write the JSON."""
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    watch = Stopwatch()
    torch.manual_seed(0)
    section = StudentSection(name=NAME)
    model = create_model(section, num_classes=1000, input_size=None).eval()
    preprocessing = resolve_preprocessing(DataSection(), model)
    classes = tuple(f"class{number}" for number in range(1000))
    spec = make_spec(WeightsInfo.of(section, classes, preprocessing), ExportSection(), "")
    seconds: dict[str, list[float]] = {"torch": [], "export": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(args.rounds + 1):
            began = time.perf_counter()
            export_bare(model, spec, folder)
            between = time.perf_counter()
            exported = onnx_from_torch(model, spec)
            exported.model.write(folder)
            ended = time.perf_counter()
            if number:  # the first round imports what both need
                seconds["torch"].append(between - began)
                seconds["export"].append(ended - between)
                print(f"torch {between - began:.1f} s, export {ended - between:.1f} s", flush=True)
    ratio = ratio_with_interval(seconds["export"], seconds["torch"])
    print(f"export / torch: {format_ratio(ratio)}", flush=True)

    data = shared_data() or parser.error(MISSING_IMAGES)
    pixels, labels, _ = read_imagenet(data, args.images)
    images = [Image.fromarray(one) for one in pixels]
    calibration = Calibration(
        preprocess_batch(images, spec), np.array(labels), tuple(pixel_sha256(one) for one in images), 0
    )
    int8: dict[str, dict[str, float]] = {}
    for label, search in (("without search", False), ("with search", True)):
        export = ExportSection(
            calibration=CalibrationSection(images=len(images)), quantize=QuantizeSection(search=search)
        )
        searched = calibration.first(export.quantize.search_images)
        built = build_precision(exported.model.proto, "int8", calibration, searched, collect_settings(export))
        evaluations = built.search.evaluations if built.search else 0
        int8[label] = {"seconds": built.seconds, "evaluations": evaluations, "kept": len(built.kept)}
        print(f"int8 {label}: {built.seconds:.0f} s, {evaluations} models run, {len(built.kept)} kept", flush=True)
    write_result(
        args.out,
        watch,
        {
            "model": NAME,
            "parameters": sum(value.numel() for value in model.parameters()),
            "threads": args.threads,
            "export_over_torch": ratio,
            "seconds": seconds,
            "int8_images": len(images),
            "int8": int8,
        },
    )


if __name__ == "__main__":
    main()
