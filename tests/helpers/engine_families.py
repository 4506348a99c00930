"""Build engines of student families in every precision with TensorRT-RTX, ahead of time: no GPU is needed.

    python tests/helpers/engine_families.py FOLDER [--full] [--families resnet18,...]

writes `engines.json` and `engines.md` into FOLDER. Weights are random. By default inputs are small and the
transformer and the ConvNeXt are cut short, as for a test; with --full each is the timm model at its own size.
Models are made as `export` makes them: fp16 and bf16 by `half_precision`, int8 by `quantize`. Builds and
ModelOpt run in this one process, which is where most of the time would go otherwise.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bundle_support
import numpy as np
import torch
from engine_support import build_arguments
from export_support import make_spec

from dskd_compress.cifar_nets import register
from dskd_compress.timm_import import import_timm
from dskd_export.bundle import BundledModel, open_bundle, write_bundle
from dskd_export.bundle.golden import Golden
from dskd_export.documents.precision import PrecisionMetadata
from dskd_export.engine.builder import build_engine
from dskd_export.engine.document import BuildDocument
from dskd_export.engine.generations import open_backend
from dskd_export.engine.process import run_request
from dskd_export.onnx_from_torch import onnx_from_torch
from dskd_export.precision import graph, modelopt
from dskd_export.precision.calibration import Calibration
from dskd_export.precision.half import half_precision
from dskd_export.precision.quantize import quantize, store_weights

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
# Of a test, and of the table.
TARGETS = {False: ("sm86",), True: ("sm86", "sm89", "sm120")}
BATCHES = {False: (8,), True: (1, 8)}


@dataclass(frozen=True)
class Family:
    """A student: `size` and `short` are of the test, `full` is the side of its own input in pixels."""

    name: str
    size: int = 64
    full: int = 224
    short: dict[str, Any] = field(default_factory=dict)
    kwargs: dict[str, Any] = field(default_factory=dict)


FAMILIES = (
    Family("resnet18"),
    Family("mobilenetv3_small_050"),
    Family("efficientnet_b0"),
    Family("convnext_atto", short={"depths": (1, 1, 2, 1)}),
    Family("vit_tiny_patch16_224", short={"img_size": 64, "depth": 3}),
    Family("regnety_002"),
    Family("repvit_m0_9"),
    Family("ghostnet_100"),
    Family("cifar_resnet20", size=32, full=32),
)


def make_models(family: Family, full: bool) -> tuple[Any, dict[str, bytes]]:
    """The spec, and precision -> ONNX; without bf16: that loads ModelOpt, which changes the others' tools."""
    size = family.full if full else family.size
    torch.manual_seed(0)
    kwargs = {} if full else family.short
    model = import_timm().create_model(family.name, num_classes=10, **kwargs).eval()
    for module in model.modules():
        # timm begins many branches with a scale of zero: their weights would fold away.
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    spec = make_spec(size, architecture=family.name)
    fp32 = onnx_from_torch(model, spec, exporter="legacy").model.proto
    images = calibration(size)
    source = graph.load(fp32)
    pairs, tool = quantize(source, "int8", images, producer="onnxruntime")
    int8 = PrecisionMetadata(precision="int8", rest="fp32", producer=tool)
    return spec, {
        "fp32": fp32,
        "fp16": half_precision(fp32, "fp16", images, producer="onnxruntime").model,
        "int8": graph.finish(store_weights(pairs), int8, source),
    }


def calibration(size: int) -> Calibration:
    """Eight images of noise: ranges of a random network."""
    images = np.random.default_rng(0).normal(size=(8, 3, size, size)).astype(np.float32)
    return Calibration(images, np.zeros(8, np.int64), tuple(f"{index:064x}" for index in range(8)), seed=0)


def modelopt_in_this_process() -> None:
    """From now on, what ModelOpt's own process would do is done here: its imports cost 6 s each time."""

    def run(command: list[str], **_: Any) -> Any:
        modelopt.main(command[-1:])
        return SimpleNamespace(returncode=0, stderr="")

    modelopt.subprocess = SimpleNamespace(run=run)  # type: ignore[attr-defined]


def build_family(
    family: Family, spec: Any, models: dict[str, bytes], folder: Path, backend: Any, full: bool
) -> list[BuildDocument]:
    """A bundle of all precisions, and its engines."""
    noise = bundle_support.make_golden(images=2, spec=spec)
    golden = Golden(noise.input, noise.logits, noise.labels, noise.image_sha256)
    arguments = {**bundle_support.bundle_arguments(), "spec": spec, "golden": golden}
    arguments["models"] = {name: BundledModel(data, "a test") for name, data in models.items()}
    bundle_folder = folder / f"{family.name}.bundle"
    write_bundle(bundle_folder, **arguments)
    bundle = open_bundle(bundle_folder)
    settings, target = build_arguments(batches=BATCHES[full], targets=TARGETS[full])
    documents = []
    for precision in PRECISIONS:
        _, document = build_engine(
            bundle,
            precision,
            folder / "engines" / family.name,
            settings,
            target,
            run=lambda request: run_request(request, backend),
        )
        documents.append(document)
    return documents


def row_of(family: Family, size: int, onnx_bytes: int, document: BuildDocument) -> dict[str, Any]:
    """What the table says of an engine."""
    assert document.truth is not None
    return {
        "family": family.name,
        "input": size,
        "precision": document.precision,
        "seconds": round(document.build_seconds, 2),
        "engine_mb": round(document.engine_bytes / 1e6, 3),
        "onnx_mb": round(onnx_bytes / 1e6, 3),
        "layers": {share.type: share.layers for share in document.truth.types},
        "reformat_layers": len(document.truth.reformat_layers),
    }


def build_all(folder: Path, *, full: bool = False, families: tuple[Family, ...] = FAMILIES) -> dict[str, Any]:
    """All engines, and the table of them.

    Args:
        folder: for bundles and engines.
        full: models at their own size.
        families: which.
    """
    logging.getLogger().setLevel(logging.ERROR)
    register()
    began = time.perf_counter()
    made = [(family, *make_models(family, full)) for family in families]
    modelopt_in_this_process()
    backend = open_backend("tensorrt-rtx")
    rows = []
    for family, spec, models in made:
        models["bf16"] = half_precision(models["fp32"], "bf16", calibration(spec.height)).model
        for document in build_family(family, spec, models, folder, backend, full):
            rows.append(row_of(family, spec.height, len(models[document.precision]), document))
            print(json.dumps(rows[-1]), flush=True)
    return {
        "command": "python tests/helpers/engine_families.py FOLDER" + (" --full" if full else ""),
        "backend": f"{backend.name} {backend.version}",
        "targets": list(TARGETS[full]),
        "batches": list(BATCHES[full]),
        "gpu": None,
        "machine": f"{platform.system()} {platform.machine()}, {_cpu()}",
        "seconds": round(time.perf_counter() - began, 1),
        "rows": rows,
    }


def _cpu() -> str:
    from dskd_export.telemetry.host import parse_cpu_model

    return parse_cpu_model(Path("/proc/cpuinfo").read_text(encoding="utf-8")) or "unknown CPU"


def markdown(table: dict[str, Any]) -> str:
    """The table for people."""
    lines = [
        "# Engines of student families",
        "",
        f"Made by `{table['command']}` with {table['backend']}, ahead of time for {', '.join(table['targets'])}, "
        f"one profile each for batch {' and '.join(map(str, table['batches']))}; no GPU, random weights. "
        f"{table['machine']}, shared with other work, so seconds are an upper bound. Layers are those that the "
        "builder's log lists, by the narrowest number type that they read; no engine has run.",
        "",
        "| family | input | precision | seconds | engine MB | ONNX MB | layers by type | reformat layers |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in table["rows"]:
        layers = ", ".join(f"{kind} {count}" for kind, count in row["layers"].items())
        lines.append(
            f"| {row['family']} | {row['input']} | {row['precision']} | {row['seconds']} | {row['engine_mb']} "
            f"| {row['onnx_mb']} | {layers} | {row['reformat_layers']} |"
        )
    return "\n".join(lines) + "\n"


def build_in_another_process(folder: Path, *arguments: str) -> dict[str, Any]:
    """As the command line does it, so that neither ModelOpt nor TensorRT touches the caller."""
    import sys

    done = subprocess.run(
        [sys.executable, __file__, str(folder), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    table: dict[str, Any] = json.loads((folder / "engines.json").read_text(encoding="utf-8"))
    return table


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--families", default=",".join(family.name for family in FAMILIES))
    given = parser.parse_args()
    torch.set_num_threads(1)
    chosen = tuple(family for family in FAMILIES if family.name in given.families.split(","))
    with tempfile.TemporaryDirectory() as scratch:
        table = build_all(Path(scratch), full=given.full, families=chosen)
    given.folder.mkdir(parents=True, exist_ok=True)
    (given.folder / "engines.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    (given.folder / "engines.md").write_text(markdown(table), encoding="utf-8")


if __name__ == "__main__":
    main()
