from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from dskd_compress.data import Preprocessing, eval_transform
from dskd_compress.stages.validate_inputs import Lot, ahead, lots_of
from dskd_export.bundle.golden import Golden
from dskd_export.spec import ModelSpec
from dskd_export.validation.golden_images import GoldenImages

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


def lots(photos: list[Image.Image], spec: ModelSpec, size: int = 3) -> list[Lot]:
    return list(lots_of(((photo, n % 2, f"{n}") for n, photo in enumerate(photos)), FORMAT, spec, size))


def test_lots_are_what_timm_makes(photos: list[Image.Image]) -> None:
    found = lots(photos, SPEC)
    assert [len(lot.labels) for lot in found] == [3, 3, 1]
    of_timm = np.concatenate([lot.of_timm for lot in found])
    transform = eval_transform(FORMAT)
    np.testing.assert_array_equal(of_timm, np.stack([transform(photo).numpy() for photo in photos]))
    assert not np.concatenate([lot.differs for lot in found]).any()
    np.testing.assert_array_equal(of_timm, np.concatenate([lot.of_device for lot in found]))
    assert [label for lot in found for label in lot.labels] == [0, 1, 0, 1, 0, 1, 0]
    assert found[2].sha256 == (hashlib.sha256(photos[6].tobytes()).hexdigest(),)


def test_images_that_the_device_prepares_otherwise_are_marked(photos: list[Image.Image]) -> None:
    (lot,) = lots(photos[:2], SPEC.model_copy(update={"interpolation": "bilinear"}))
    assert lot.differs.tolist() == [True, True]
    assert np.abs(lot.of_timm - lot.of_device).max() > 0.01


@pytest.mark.parametrize(("dtype", "layout"), [("uint8", "NHWC"), ("uint8", "NCHW"), ("float32", "NHWC")])
def test_any_form_of_the_input_is_compared_with_timm(dtype: str, layout: str, photos: list[Image.Image]) -> None:
    spec = SPEC.model_copy(update={"input_dtype": dtype, "input_layout": layout})
    (lot,), (plain,) = lots(photos[:3], spec), lots(photos[:3], SPEC)
    assert lot.device_input.shape == ((3, 24, 24, 3) if layout == "NHWC" else (3, 3, 24, 24))
    assert lot.device_input.dtype == dtype
    np.testing.assert_array_equal(lot.timm_input, lot.device_input)
    np.testing.assert_array_equal(lot.of_device, plain.of_timm)
    assert not lot.differs.any()
    (wrong,) = lots(photos[:3], spec.model_copy(update={"mean": SPEC.std, "std": SPEC.mean}))
    assert wrong.differs.all()
    np.testing.assert_array_equal(wrong.timm_input, lot.timm_input)  # the student's own


def golden_of(lots: list[Lot], **changes: np.ndarray) -> Golden:
    """The second and third image, as they are."""
    arrays = {
        "input": lots[0].of_device[1:],
        "logits": np.zeros((2, 2), np.float32),
        "labels": lots[0].labels[1:],
        "image_sha256": np.array(lots[0].sha256[1:]),
    }
    return Golden(**{**arrays, **changes})


def looked_through(golden: Golden, lots: list[Lot]) -> GoldenImages:
    images = GoldenImages(golden)
    for lot in lots:
        images.find(lot.sha256, lot.labels, lot.device_input)
    return images


def test_golden_images_are_found_and_compared(photos: list[Image.Image]) -> None:
    there = lots(photos, SPEC)
    found = looked_through(golden_of(there), there)
    assert (found.labels, found.unlike()) == ({0: {1}, 1: {0}}, [])
    other = looked_through(golden_of(there, input=there[0].of_device[:2], labels=np.array([1, 1])), there)
    assert other.unlike() == [
        "the input of golden image 0 is not what the spec makes of it",
        "the input of golden image 1 is not what the spec makes of it",
        "the label of golden image 1 is 1, in the data it is 0",
    ]
    assert looked_through(golden_of(there), there[1:]).labels == {}


def test_one_picture_under_two_classes_is_no_fault(photos: list[Image.Image]) -> None:
    there = lots([*photos, photos[1], photos[1]], SPEC)  # the second picture again, with either label
    found = looked_through(golden_of(there), there)
    assert (found.labels[0], found.unlike()) == ({0, 1}, [])


def test_the_next_item_is_under_way_and_no_more_than_that() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            yield number

    seen = []
    for item in ahead(items()):
        time.sleep(0.02)  # as long as the runners take
        assert len(made) <= item + 2
        seen.append(item)
    assert seen == made == [0, 1, 2, 3, 4]


def test_items_are_made_in_another_thread() -> None:
    here = threading.get_ident()
    assert all(ident != here for ident in ahead(threading.get_ident() for _ in range(3)))


def test_an_error_of_an_item_arrives() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("the second cannot be read")

    found = ahead(items())
    assert next(found) == 1
    with pytest.raises(ValueError, match="cannot be read"):
        next(found)
