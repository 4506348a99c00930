"""Four methods, each with results of its bundle on two devices in three precisions: twelve folders."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

METHODS = ("dskd", "dist", "kd", "none")
DEVICES = {
    "nvidia-jetson-orin-nano": ("Cortex-A78AE, NVIDIA Jetson Orin Nano", 3.0),
    "xeon": ("Intel Xeon 8481C", 1.0),
}
PRECISIONS = {"fp32": (1.0, 2.4), "fp16": (0.8, 1.21), "int8": (0.45, 0.74)}


def interval(value: float, share: float = 0.02) -> dict[str, float]:
    return {"value": value, "low": value * (1 - share), "high": value * (1 + share)}


def make_matrix(make_run: Callable[..., Path], folder: Path) -> list[Path]:
    """Run folders, and beside them results on devices.

    Args:
        make_run: writes a run folder at a path.
        folder: where all of it goes.
    """
    made = []
    for number, method in enumerate(METHODS):
        run = make_run(folder / method)
        document = json.loads((run / "distill.json").read_text())
        document["method"] = method
        if method == "none":
            document["teacher"] = document["teacher_accuracy"] = None
        (run / "distill.json").write_text(json.dumps(document))
        # Another bundle for each method.
        manifest = json.loads((run / "bundle/manifest.json").read_text())
        manifest["method"] = method
        (run / "bundle/manifest.json").write_text(json.dumps(manifest))
        bundle = hashlib.sha256((run / "bundle/manifest.json").read_bytes()).hexdigest()
        for name in ("validation.json", "benchmark.json"):
            made_of = json.loads((run / name).read_text())
            (run / name).write_text(json.dumps({**made_of, "bundle_sha256": bundle}))
        shutil.rmtree(run / "stages")  # its hashes are of the files before
        made.append(run)
        for device, (cpu, factor) in DEVICES.items():
            made.append(_on_device(run, folder / "results" / method / device, cpu, factor * (1 + 0.02 * number)))
    return made


def _on_device(run: Path, folder: Path, cpu: str, factor: float) -> Path:
    folder.mkdir(parents=True)
    for name in ("bundle/manifest.json", "bundle/spec.json", "validation.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(run / name, folder / name)
    document = json.loads((run / "benchmark.json").read_text())
    document["provenance"]["device"]["cpu"] = cpu
    (row,) = [
        one
        for one in document["rows"]
        if (one["model"], one["runner"], one["provider"], one["batch"], one["part"])
        == ("student", "onnxruntime", "cpu", 1, "engine")
    ]
    document["rows"] = [_row(row, precision, factor) for precision in PRECISIONS]
    document["scenarios"] = [_scenario(factor)]
    (folder / "benchmark.json").write_text(json.dumps(document))
    return folder


def _row(row: dict[str, Any], precision: str, factor: float) -> dict[str, Any]:
    faster, size_mb = PRECISIONS[precision]
    made: dict[str, Any] = json.loads(json.dumps(row))
    latency = made["latency"]
    for name in ("p50", "p90", "p95", "p99", "p999", "mean", "min", "max"):
        latency[f"{name}_ms"] *= faster * factor
    latency["intervals_ms"] = {name: interval(latency[f"{name}_ms"]) for name in ("p50", "p90", "p99", "mean")}
    energy = interval(12.0 * faster * factor, 0.05)
    made |= {"precision": precision, "size_mb": size_mb, "samples_key": None, "energy_per_image_mj": energy}
    made["memory"] = {
        "resident_mb": 40.0 * faster,
        "process_peak_mb": 210.0,
        "device_reason": "it runs on the CPU",
    }
    made["breakdown"] = [
        {"name": "decode", "p50_ms": interval(1.1)},
        {"name": "preprocess", "p50_ms": interval(0.4)},
        {"name": "host_to_device", "p50_ms": None, "reason": "the CPU has no copies"},
        {"name": "device", "p50_ms": interval(latency["p50_ms"])},
        {"name": "postprocess", "p50_ms": interval(0.02)},
    ]
    return made


def _scenario(factor: float) -> dict[str, Any]:
    return {
        "model": "student",
        "runner": "onnxruntime",
        "provider": "cpu",
        "precision": "int8",
        "threads": 2,
        "scenario": "Server",
        "metric": "rate_per_s",
        "value": interval(900 / factor),
        "samples_per_query": 1,
        "batch": 1,
        "queries": 12_000,
        "seconds": 40.0,
        "bound_ms": 15.0,
    }
