"""A small real bundle with a file of every kind, and the hands of somebody who means harm."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dskd_export.bundle import (
    BundledModel,
    BundleProvenance,
    CalibrationFacts,
    LicenseFacts,
    Licenses,
    PrecisionCalibration,
)
from dskd_export.bundle.golden import Golden
from dskd_export.spec import ModelSpec

CLASSES = 7
HEIGHT, WIDTH = 6, 8


def make_spec(**changes: object) -> ModelSpec:
    fields: dict[str, object] = {
        "architecture": "resnet18",
        "height": HEIGHT,
        "width": WIDTH,
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.25, 0.3),
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "classes": tuple(f"class {index}" for index in range(CLASSES)),
        "opset": 20,
        "student_sha256": "a" * 64,
    }
    return ModelSpec.model_validate(fields | changes)


def make_golden(images: int = 4, seed: int = 0, spec: ModelSpec | None = None) -> Golden:
    spec = spec or make_spec()
    rng = np.random.default_rng(seed)
    return Golden(
        input=rng.normal(size=(images, 3, spec.height, spec.width)).astype(np.float32),
        logits=rng.normal(size=(images, len(spec.classes))).astype(np.float32),
        labels=rng.integers(0, len(spec.classes), images),
        image_sha256=np.array([hashlib.sha256(str(index).encode()).hexdigest() for index in range(images)]),
    )


def make_head() -> tuple[np.ndarray, np.ndarray]:
    """Weights [3, K] and biases [K] of the classifier below."""
    rng = np.random.default_rng(3)
    return rng.normal(size=(3, CLASSES)).astype(np.float32), rng.normal(size=CLASSES).astype(np.float32)


def make_model(metadata: dict[str, str] | None = None, output_name: str = "logits") -> onnx.ModelProto:
    """ONNX: mean over the pixels, then a linear head; any batch."""
    weight, bias = make_head()
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["input", "axes"], ["pooled"], keepdims=0),
            helper.make_node("Gemm", ["pooled", "weight", "bias"], [output_name]),
        ],
        "classifier",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, ["batch", CLASSES])],
        [
            numpy_helper.from_array(np.array([2, 3]), "axes"),
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(bias, "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, make_spec().to_metadata() if metadata is None else metadata)
    onnx.checker.check_model(model, full_check=True)
    return model


def move_out(tensor: TensorProto, location: str, offset: int = 0, length: int | None = None) -> bytes:
    """Let a tensor lie in another file; gives what lies there."""
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    entries = {"location": location, "offset": str(offset), "length": str(len(data) if length is None else length)}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return data


def external_model(file_name: str) -> tuple[bytes, bytes]:
    """The same classifier with its weights in a file of their own: both files."""
    model, weights = make_model(), b""
    for tensor in model.graph.initializer[1:]:
        weights += move_out(tensor, f"{file_name}.data", offset=len(weights))
    return model.SerializeToString(deterministic=True), weights


def make_models() -> dict[str, BundledModel]:
    """Three precisions by name: one file, two files, one that needs a calibration."""
    proto, weights = external_model("model.fp16.onnx")
    return {
        "fp32": BundledModel(make_model().SerializeToString(deterministic=True), "torch.onnx dynamo 2.13.0"),
        "fp16": BundledModel(proto, "a converter 1.0", weights, {"kept_in_fp32": ["norm"]}),
        "int8": BundledModel(make_model({}).SerializeToString(deterministic=True), "a quantiser 2.0"),
    }


def make_provenance(**changes: object) -> BundleProvenance:
    fields: dict[str, object] = {
        "student": "resnet18",
        "student_sha256": "a" * 64,
        "teacher": "resnet34",
        "teacher_weights": "pretrained",
        "method": "dskd",
        "recipe": "mine",
        "recipe_sha256": "b" * 64,
        "seed": 0,
        "data_sha256": "c" * 64,
        "versions": {"numpy": "2", "onnx": "1"},
        "licenses": Licenses(
            weights=LicenseFacts(name="Apache-2.0", source="the recipe"),
            student_start=LicenseFacts(name=None, source="random weights"),
            teacher=LicenseFacts(name="cc-by-nc-4.0", source="timm"),
        ),
    }
    return BundleProvenance.model_validate(fields | changes)


def make_calibration() -> CalibrationFacts:
    return CalibrationFacts(
        seed=0,
        image_sha256=tuple(hashlib.sha256(bytes([200, index])).hexdigest() for index in range(3)),
        evaluation_images=4,
        precisions={"int8": PrecisionCalibration(method="entropy", producer="a quantiser 2.0")},
    )


def bundle_arguments() -> dict[str, Any]:
    """What `write_bundle` needs for a bundle with a file of every kind."""
    return {
        "spec": make_spec(),
        "models": make_models(),
        "golden": make_golden(),
        "provenance": make_provenance(),
        "calibration": make_calibration(),
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- somebody who knows how a manifest is made


def canonical(value: object) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def sign(manifest: dict[str, Any]) -> bytes:
    """The manifest with the sha256 that fits it."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return canonical({**rest, "sha256": hashlib.sha256(canonical(rest)).hexdigest()})


def rewrite_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    change(manifest)
    path.write_bytes(sign(manifest))


def replace_file(folder: Path, name: str, data: bytes) -> None:
    """Write another content and make the manifest agree."""
    (folder / name).write_bytes(data)
    facts = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    rewrite_manifest(folder, lambda manifest: manifest["files"].update({name: facts}))


def repack(packed: Path, body: bytes) -> None:
    """Write another compressed body behind the mark of a packed bundle, with the sha256 that fits it."""
    begin = packed.read_bytes()
    mark = begin[:16] if begin.startswith(b"\x1f\x8b") else begin[:8]
    packed.write_bytes(mark + hashlib.sha256(body).digest() + body)


def varint(value: int) -> bytes:
    data = b""
    while value > 0x7F:
        data += bytes([value & 0x7F | 0x80])
        value >>= 7
    return data + bytes([value])


def protobuf_bytes(number: int, data: bytes) -> bytes:
    """One length-delimited field."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive, as an npz is one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def npy(header: bytes, values: bytes = b"") -> bytes:
    """A `.npy` file with any text for its header."""
    header = header.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + values
