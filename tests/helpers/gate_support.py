"""Runs on real photographs for the tests of the gate, models of other precisions, and faults to plant in them.

The small run is trained on patches of the two photographs that come with scikit-learn; the large one is
MobileNetV2 with real ImageNet weights, where the images are at hand.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image
from readme_blocks import ROOT
from run_support import QUIET

from dskd_compress.config import Recipe
from dskd_compress.data import iter_images, open_data, resolve_preprocessing
from dskd_compress.models import create_model
from dskd_compress.recipe import recipe_from_mapping
from dskd_compress.run_folder import RunFolder
from dskd_compress.weights import WeightsInfo, save_weights
from dskd_export.bundle import BundledModel, CalibrationFacts, PrecisionCalibration, open_bundle, write_bundle
from dskd_export.bundle.golden import Golden
from dskd_export.runtime.preprocess import preprocess_batch
from dskd_export.spec import ModelSpec

CLASSES = ("flower", "leaves", "roof", "sky")
PIXELS = 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


# --- the small run


def write_patches(path: Path) -> Path:
    """Patches of 32 px of two real photographs, told apart by what they show."""
    from sklearn.datasets import load_sample_image

    china, flower = load_sample_image("china.jpg"), load_sample_image("flower.jpg")
    places = {
        "flower": flower[100:300, 200:420],
        "leaves": np.concatenate([flower[:, :140], flower[:, 500:]], axis=1),
        "roof": china[180:400, 100:600],
        "sky": china[:110, :],
    }
    pixels, labels = [], []
    for label, name in enumerate(CLASSES):
        region = places[name]
        for top in range(0, region.shape[0] - PIXELS + 1, 14):
            for left in range(0, region.shape[1] - PIXELS + 1, 14):
                pixels.append(region[top : top + PIXELS, left : left + PIXELS])
                labels.append(label)
    np.savez(path, x=np.stack(pixels), y=np.array(labels), classes=np.array(CLASSES))
    return path


def photo_recipe(source: Path, *overrides: str) -> Recipe:
    """A student that learns the patches in a few seconds; mean and std are ImageNet's."""
    training = {"epochs": 3, "batch_size": 32, "optimizer": "adamw", "lr": 3e-3, "threads": 1}
    values = {
        "name": "patches",
        "data": {
            "source": str(source),
            "input_size": PIXELS,
            "workers": 0,
            "val_fraction": 0.5,
            "mean": list(MEAN),
            "std": list(STD),
            "crop_pct": 1.0,
        },
        "teacher": {"name": "test_resnet", "pretrained": False, "train": {**training, "epochs": 1}},
        "student": {"name": "test_efficientnet", "pretrained": False},
        "method": {"name": "none"},
        "train": training,
        "export": {"golden_images": 8, "teacher": False},
        "validate": {"batches": [3]},
    }
    return recipe_from_mapping(values, list(overrides))


def make_photo_run(folder: Path) -> RunFolder:
    """Trained and exported, with fp16 and int8 beside fp32."""
    from dskd_compress.stages.pipeline import run_pipeline

    recipe = photo_recipe(write_patches(folder / "patches.npz"))
    run = RunFolder(folder / "run")
    list(run_pipeline(recipe, run, QUIET, last="export"))
    add_precisions(run)
    return run


def copy_run(run: RunFolder, to: Path) -> RunFolder:
    """The same run elsewhere."""
    shutil.copytree(run.path, to)
    return RunFolder(to)


# --- the large run


def shared_data() -> Path | None:
    """The folder of real data: $DSKD_TEST_DATA, or `shared/data` beside the checkout or above it."""
    named = os.environ.get("DSKD_TEST_DATA")
    places = [Path(named)] if named else [parent / "shared/data" for parent in ROOT.parents]
    return next((place for place in places if (place / "imagenet_val1300.tar").is_file()), None)


def read_imagenet(
    data: Path, images: int | None = None
) -> tuple[list[NDArray[np.uint8]], list[int], tuple[str, ...]]:
    """Labelled images of ImageNet, 227 px: pixels, labels, and the names of all classes."""
    with tarfile.open(data / "imagenet_val1300.tar") as tar:
        words = tar.extractfile("synset_words.txt")
        assert words is not None
        classes = tuple(line.split()[0] for line in words.read().decode().splitlines())
        members = sorted(
            (member for member in tar.getmembers() if member.name.endswith(".JPEG")), key=lambda m: m.name
        )[:images]
        pixels, labels = [], []
        for member in members:
            file = tar.extractfile(member)
            assert file is not None
            pixels.append(np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB")))
            labels.append(classes.index(member.name.split("/")[0]))
    return pixels, labels, classes


def make_mobilenet_run(
    folder: Path, data: Path, images: int | None = None, train: slice = slice(8), **changes: Any
) -> RunFolder:
    """A run folder around MobileNetV2 with its real weights and the real images, not exported yet.

    Args:
        folder: where it will lie.
        data: of the real images and weights.
        images: the first so many; None: all 1,300.
        train: which of them are for training, so for calibration; the others are for validation.
        changes: of the recipe's data section.
    """
    pixels, labels, classes = read_imagenet(data, images)
    source = folder / "imagenet.npz"
    x, y = np.array(pixels), np.array(labels)
    val = np.setdiff1d(np.arange(len(y)), np.arange(len(y))[train])
    np.savez(source, x_train=x[train], y_train=y[train], x_val=x[val], y_val=y[val], classes=np.array(classes))
    recipe = recipe_from_mapping(
        {
            "name": "mobilenet",
            "data": {"source": str(source), "workers": 0, **changes},
            "teacher": {"name": "test_resnet", "pretrained": False},
            "student": {"name": "mobilenetv2_100", "pretrained": False, "kwargs": {"pad_type": "same"}},
            "method": {"name": "none"},
            "export": {"golden_images": 8, "teacher": False},
            "validate": {"batches": [1]},
        }
    )
    run = RunFolder(folder / "run")
    checkpoint = data / "mobilenetv2_100.same_pad_in1k.safetensors"
    section = recipe.student.model_copy(update={"checkpoint": checkpoint})
    model = create_model(section, num_classes=1000, input_size=None)
    preprocessing = resolve_preprocessing(
        recipe.data.model_copy(update={"mean": (0.5,) * 3, "std": (0.5,) * 3}), model
    )
    info = WeightsInfo.of(recipe.student, classes, preprocessing)
    run.create()
    run.write_recipe(recipe)
    save_weights(run.weights("student"), model.state_dict(), info)
    return run


# --- bundles


def rewrite(
    run: RunFolder,
    *,
    models: dict[str, bytes] | None = None,
    spec: ModelSpec | None = None,
    golden: Golden | None = None,
    calibration: CalibrationFacts | None = None,
) -> None:
    """Write the bundle again with other contents, hashes and all: what a faulty exporter would have written."""
    bundle = open_bundle(run.bundle)
    spec = spec or bundle.spec
    protos = {name: bundle.model_path(name).read_bytes() for name in bundle.precisions} | (models or {})
    facts = calibration or bundle.calibration
    methods = {name: PrecisionCalibration(method="max", producer="a test") for name in protos if name != "fp32"}
    write_bundle(
        run.bundle,
        spec=spec,
        models={name: BundledModel(_with_metadata(proto, spec), "a test") for name, proto in protos.items()},
        golden=golden or bundle.golden(),
        provenance=bundle.manifest.provenance,
        calibration=facts and facts.model_copy(update={"precisions": methods}),
    )


def _with_metadata(proto: bytes, spec: ModelSpec) -> bytes:
    model = onnx.load_from_string(proto)
    onnx.helper.set_model_props(
        model, {prop.key: prop.value for prop in model.metadata_props} | spec.to_metadata()
    )
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def with_spec(run: RunFolder, **changes: Any) -> None:
    """Another spec in spec.json and in the models; the golden images stay."""
    rewrite(run, spec=open_bundle(run.bundle).spec.model_copy(update=changes))


def with_golden(run: RunFolder, **changes: NDArray[Any]) -> None:
    """Other golden arrays."""
    rewrite(run, golden=dataclasses.replace(open_bundle(run.bundle).golden(), **changes))


def with_model(run: RunFolder, precision: str, change: Callable[[onnx.ModelProto], None]) -> None:
    """Another graph of one precision."""
    model = onnx.load_from_string(open_bundle(run.bundle).model_path(precision).read_bytes())
    change(model)
    rewrite(run, models={precision: model.SerializeToString(deterministic=True)})


def add_precisions(run: RunFolder) -> None:
    """fp16 by plain conversion, int8 by static quantisation on a few training images: crude, and good enough."""
    bundle, recipe = open_bundle(run.bundle), run.read_recipe()
    fp32 = bundle.model_path("fp32").read_bytes()
    sets = open_data(recipe.data, recipe.seed)
    images = [image for image, _, _ in iter_images(sets.train, 8, recipe.seed)]
    inputs = preprocess_batch(images, bundle.spec)
    facts = CalibrationFacts(
        seed=recipe.seed,
        image_sha256=tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in images),
        evaluation_images=0,
        precisions={"int8": PrecisionCalibration(method="max", producer="a test")},
    )
    rewrite(run, models={"fp16": fp16_of(fp32), "int8": int8_of(fp32, inputs, run.path)}, calibration=facts)


def fp16_of(fp32: bytes) -> bytes:
    """All of it in fp16 but for input and output."""
    from onnxconverter_common import float16

    model = float16.convert_float_to_float16(onnx.load_from_string(fp32), keep_io_types=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def int8_of(fp32: bytes, inputs: Sequence[NDArray[np.float32]], scratch: Path) -> bytes:
    """Q/DQ, weights by channel, calibrated by the largest values."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [{"input": image[None]} for image in inputs]

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return self.left.pop() if self.left else None

    source, target = scratch / "to-quantise.onnx", scratch / "quantised.onnx"
    source.write_bytes(fp32)
    quantize_static(
        source,
        target,
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    data = target.read_bytes()
    source.unlink()
    target.unlink()
    return data


# --- faults in a graph


def scale_convolution(model: onnx.ModelProto) -> None:
    """One convolution's weights times ten: the third, in the middle of the model."""
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    _scale(model, convolutions[2].input[1])


def scale_classifier(model: onnx.ModelProto) -> None:
    """The logits times ten, which changes no first class."""
    for name in _classifier(model):
        _scale(model, name)


def shift_classifier(model: onnx.ModelProto) -> None:
    """Every class's logit in the place of the next."""
    classes = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    for name in _classifier(model):
        _change(model, name, lambda values: np.roll(values, 1, axis=values.shape.index(classes)))


def take_bgr(model: onnx.ModelProto) -> None:
    """The first convolution reads its channels the other way round."""
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    _change(model, first.input[1], lambda values: values[:, ::-1])


def break_with_nan(model: onnx.ModelProto) -> None:
    """One bias is NaN."""
    _change(model, _classifier(model)[1], lambda values: values * np.nan)


def _classifier(model: onnx.ModelProto) -> tuple[str, str]:
    """Names of the weight and the bias of the last linear layer."""
    last = [node for node in model.graph.node if node.op_type == "Gemm"][-1]
    return last.input[1], last.input[2]


def _scale(model: onnx.ModelProto, name: str) -> None:
    """A constant times ten; where it is quantised, the scale of its DequantizeLinear."""
    made = {output: node for node in model.graph.node for output in node.output}
    _change(model, made[name].input[1] if name in made else name, lambda values: 10 * values)


def _change(model: onnx.ModelProto, name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(change(values)).astype(values.dtype), name))


def swapped(image: Image.Image) -> Image.Image:
    """Red and blue in each other's place."""
    return Image.fromarray(np.asarray(image.convert("RGB"))[..., ::-1].copy())
