"""Bundles to deploy, and a machine without a GPU to deploy them to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundle_support import bundle_arguments, make_head
from onnx import TensorProto, helper, numpy_helper

from dskd_export.bundle import Bundle, BundledModel, open_bundle, write_bundle
from dskd_export.bundle.golden import Golden
from dskd_export.spec import ModelSpec

STUB = Path(__file__).parents[1] / "dskd_export/deployment/tensorrt_stub"
ODD_CLASSES = (
    *(
        "plain",
        'a "quoted" one',
        "line\nbreak",
        "back\\slash",
        "%s %n",
        "naïve – 猫",
        "\u2028 sep; rm -rf $HOME `id`",
    ),
)
ODD_INPUT = 'pixels "raw" ??/'


def plain_bundle(folder: Path) -> Bundle:
    """Float32 in planes, logits; fp32, fp16 with its weights beside it, int8."""
    write_bundle(folder, **bundle_arguments())
    return open_bundle(folder)


def odd_bundle(folder: Path) -> Bundle:
    """Bytes as decoders give them, any size, probabilities; names that somebody made up to do harm."""
    arguments = bundle_arguments()
    spec = arguments["spec"].model_copy(
        update={
            "architecture": 'hf-hub:x/y"\n*/ #$(id)',
            "input_name": ODD_INPUT,
            "input_dtype": "uint8",
            "input_layout": "NHWC",
            "dynamic_size": True,
            "output_name": "probabilities",
            "classes": ODD_CLASSES,
        }
    )
    spec = ModelSpec.model_validate(spec.model_dump())
    rng = np.random.default_rng(1)
    golden: Golden = arguments["golden"]
    probabilities = rng.dirichlet(np.ones(len(ODD_CLASSES)), size=len(golden.labels)).astype(np.float32)
    golden = Golden(
        input=rng.integers(0, 256, (len(golden.labels), *spec.input_shape(1)[1:]), dtype=np.uint8),
        logits=np.log(probabilities),
        labels=golden.labels,
        image_sha256=golden.image_sha256,
    )
    model = BundledModel(_bytes_model(spec).SerializeToString(deterministic=True), "by hand")
    write_bundle(folder, spec=spec, models={"fp32": model}, golden=golden, provenance=arguments["provenance"])
    return open_bundle(folder)


def _bytes_model(spec: ModelSpec) -> onnx.ModelProto:
    weight, bias = make_head()
    graph = helper.make_graph(
        [
            helper.make_node("Cast", [spec.input_name], ["float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["float", "axes"], ["pooled"], keepdims=0),
            helper.make_node("Gemm", ["pooled", "weight", "bias"], ["logits"]),
            helper.make_node("Softmax", ["logits"], [spec.output_name]),
        ],
        "classifier",
        [helper.make_tensor_value_info(spec.input_name, TensorProto.UINT8, ["batch", "height", "width", 3])],
        [helper.make_tensor_value_info(spec.output_name, TensorProto.FLOAT, ["batch", len(spec.classes)])],
        [
            numpy_helper.from_array(np.array([1, 2]), "axes"),
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(bias, "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, spec.to_metadata())
    return model


def tool(name: str) -> str:
    """A program of the test group: beside this interpreter, or on the PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is not installed; it comes with: pip install --group test")
    return found


def run(arguments: Sequence[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own."""
    return subprocess.run(
        arguments,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **environment},
    )


def build_stub(root: Path) -> None:
    """The stand-ins of TensorRT and CUDA, as they would be installed: include/ and lib/."""
    (root / "include").mkdir(parents=True)
    (root / "lib").mkdir()
    for header in STUB.glob("*.h"):
        shutil.copy(header, root / "include")
    for library, linked in (("cudart", ()), ("nvinfer", ("-lcudart",))):
        done = run(
            [
                *("g++", "-std=c++17", "-shared", "-fPIC", f"-I{STUB}", str(STUB / f"{library}.cpp")),
                *("-o", str(root / f"lib/lib{library}.so"), f"-L{root / 'lib'}", *linked),
            ],
            root,
        )
        assert done.returncode == 0, done.stderr


def hex_name(name: str) -> str:
    """The name of a tensor in the header of an engine for the stand-in, which is read word by word."""
    return name.encode().hex()


def stub_engine(
    spec: ModelSpec,
    images: np.ndarray,
    outputs: np.ndarray,
    *,
    batches: tuple[int, int] = (1, 4),
    tensors: Sequence[str] | None = None,
) -> bytes:
    """An engine for the stand-in that knows these images [N, ...] and their outputs [N, K]."""
    type_ = "uint8" if spec.input_dtype == "uint8" else "float"
    sides = " ".join(map(str, spec.input_shape(1)[1:]))
    least, most = batches
    batch = -1 if least != most else least
    lines = tensors or [
        f"tensor {hex_name(spec.input_name)} in {type_} 4 {batch} {sides} {least} {sides} {most} {sides}",
        f"tensor {hex_name(spec.output_name)} out float 2 {batch} {len(spec.classes)} 0 0 0 0",
    ]
    image_bytes, output_bytes = images[0].nbytes, outputs[0].astype("<f4").nbytes
    header = "\n".join(["STUB-ENGINE", *lines, f"pairs {len(images)} {image_bytes} {output_bytes}", ""])
    pairs = [
        image.tobytes() + output.astype("<f4").tobytes() for image, output in zip(images, outputs, strict=True)
    ]
    return header.encode() + b"".join(pairs)
