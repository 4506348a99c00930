from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image

from dskd_compress.config import ExportSection
from dskd_compress.data import Preprocessing, eval_transform
from dskd_compress.stages.export import make_spec
from dskd_compress.torch_reference import TimmBatch, spec_differences, timm_batches
from dskd_compress.weights import WeightsInfo
from dskd_export.bundle.golden import Golden
from dskd_export.spec import ModelSpec
from dskd_export.validation.parity import GoldenSearch
from dskd_export.validation.reference import find_differing

FORMAT = Preprocessing((3, 24, 24), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", 0.9, "center")
SPEC = ModelSpec(
    architecture="resnet18",
    height=24,
    width=24,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    interpolation="bicubic",
    crop_pct=0.9,
    classes=("a", "b"),
    opset=20,
    student_sha256="a" * 64,
)


@pytest.fixture
def photos() -> list[Image.Image]:
    from sklearn.datasets import load_sample_image

    photo = Image.fromarray(load_sample_image("flower.jpg"))
    return [photo.crop((left, 40, left + 90 + left // 9, 140)) for left in range(0, 210, 30)]


def batches_of(photos: list[Image.Image], spec: ModelSpec, size: int = 3) -> list[TimmBatch]:
    return list(timm_batches(((photo, n % 2, f"{n}") for n, photo in enumerate(photos)), FORMAT, spec, size=size))


def test_lots_are_what_timm_makes(photos: list[Image.Image]) -> None:
    found = batches_of(photos, SPEC)
    assert [len(lot.labels) for lot in found] == [3, 3, 1]
    of_timm = np.concatenate([lot.of_timm for lot in found])
    transform = eval_transform(FORMAT)
    np.testing.assert_array_equal(of_timm, np.stack([transform(photo).numpy() for photo in photos]))
    assert not any(find_differing(lot.of_timm, lot.of_device).any() for lot in found)
    np.testing.assert_array_equal(of_timm, np.concatenate([lot.of_device for lot in found]))
    assert [label for lot in found for label in lot.labels] == [0, 1, 0, 1, 0, 1, 0]
    assert found[2].sha256 == (hashlib.sha256(photos[6].tobytes()).hexdigest(),)


def test_images_that_the_device_prepares_otherwise_are_marked(photos: list[Image.Image]) -> None:
    (lot,) = batches_of(photos[:2], SPEC.model_copy(update={"interpolation": "bilinear"}))
    assert find_differing(lot.timm_input, lot.inputs).tolist() == [True, True]
    assert np.abs(lot.of_timm - lot.of_device).max() > 0.01


@pytest.mark.parametrize(("dtype", "layout"), [("uint8", "NHWC"), ("uint8", "NCHW"), ("float32", "NHWC")])
def test_any_form_of_the_input_is_compared_with_timm(dtype: str, layout: str, photos: list[Image.Image]) -> None:
    spec = SPEC.model_copy(update={"input_dtype": dtype, "input_layout": layout})
    (lot,), (plain,) = batches_of(photos[:3], spec), batches_of(photos[:3], SPEC)
    assert lot.inputs.shape == ((3, 24, 24, 3) if layout == "NHWC" else (3, 3, 24, 24))
    assert lot.inputs.dtype == dtype
    np.testing.assert_array_equal(lot.timm_input, lot.inputs)
    np.testing.assert_array_equal(lot.of_device, plain.of_timm)
    assert not find_differing(lot.timm_input, lot.inputs).any()
    (wrong,) = batches_of(photos[:3], spec.model_copy(update={"mean": SPEC.std, "std": SPEC.mean}))
    assert find_differing(wrong.of_timm, wrong.of_device).all()
    np.testing.assert_array_equal(wrong.timm_input, lot.timm_input)  # the student's own


def golden_of(lots: list[TimmBatch], **changes: np.ndarray) -> Golden:
    """The second and third image, as they are."""
    arrays = {
        "input": lots[0].of_device[1:],
        "logits": np.zeros((2, 2), np.float32),
        "labels": lots[0].labels[1:],
        "image_sha256": np.array(lots[0].sha256[1:]),
    }
    return Golden(**{**arrays, **changes})


def looked_through(golden: Golden, lots: list[TimmBatch]) -> GoldenSearch:
    images = GoldenSearch(golden)
    for lot in lots:
        images.find(lot.sha256, lot.labels, lot.inputs)
    return images


def test_golden_images_are_found_and_compared(photos: list[Image.Image]) -> None:
    there = batches_of(photos, SPEC)
    found = looked_through(golden_of(there), there)
    assert (found.found, found.differences()) == ({0: {1}, 1: {0}}, [])
    other = looked_through(golden_of(there, input=there[0].of_device[:2], labels=np.array([1, 1])), there)
    assert other.differences() == [
        "the input of golden image 0 is not what the spec makes of it",
        "the input of golden image 1 is not what the spec makes of it",
        "the label of golden image 1 is 1, in the data it is 0",
    ]
    assert looked_through(golden_of(there), there[1:]).found == {}


def test_one_picture_under_two_classes_is_no_fault(photos: list[Image.Image]) -> None:
    there = batches_of([*photos, photos[1], photos[1]], SPEC)  # the second picture again, with either label
    found = looked_through(golden_of(there), there)
    assert (found.found[0], found.differences()) == ({0, 1}, [])


def _info(classes: tuple[str, ...]) -> WeightsInfo:
    return WeightsInfo(
        name="resnet18",
        kwargs={},
        classes=classes,
        input_size=(3, 32, 32),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        interpolation="bicubic",
        crop_pct=0.9,
        crop_mode="center",
    )


@pytest.mark.parametrize("classes", [("cat", "dog"), tuple(str(index) for index in range(1000))])
def test_what_export_writes_is_what_validate_expects(classes: tuple[str, ...]) -> None:
    """Also where the classes are numbers, which get the names of ImageNet's."""
    info = _info(classes)
    spec = make_spec(info, ExportSection(), "a" * 64)
    assert spec_differences(spec, info) == []


def test_other_classes_are_named() -> None:
    spec = make_spec(_info(("cat", "dog")), ExportSection(), "a" * 64)
    (text,) = spec_differences(spec, _info(("dog", "cat")))
    assert "classes" in text
