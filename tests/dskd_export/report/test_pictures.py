"""Golden images turned back into what a person sees."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dskd_export.bundle.golden import Golden
from dskd_export.report import build_report
from dskd_export.report.sections.numerics import golden_of, pictures_of
from dskd_export.runtime.preprocess import pixels_from_input, preprocess
from dskd_export.spec import ModelSpec


@pytest.fixture
def run(make_run: Callable[..., Path]) -> Path:
    return make_run(precisions=True)


def make_spec(run: Path, **changes: object) -> ModelSpec:
    spec = ModelSpec.read(run / "bundle/spec.json")
    return ModelSpec.model_validate({**spec.model_dump(), **changes})


def pixels(seed: int, spec: ModelSpec) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (spec.height, spec.width, 3), dtype=np.uint8)


def golden(spec: ModelSpec, labels: list[int]) -> Golden:
    images = [preprocess(Image.fromarray(pixels(seed, spec)), spec) for seed in range(len(labels))]
    logits = np.eye(len(spec.classes), dtype=np.float32)[labels]
    return Golden(np.stack(images), logits, np.array(labels), np.array(["0" * 64] * len(labels)))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_normalisation_is_undone(run: Path, layout: str, dtype: str) -> None:
    spec = make_spec(run, input_layout=layout, input_dtype=dtype)
    image = preprocess(Image.fromarray(pixels(0, spec)), spec)
    np.testing.assert_array_equal(pixels_from_input(image, spec), pixels(0, spec))


def test_pictures_of_the_worst_class_are_on_the_page(run: Path) -> None:
    spec = make_spec(run)
    (run / "bundle/golden.npz").write_bytes(golden(spec, [7, 3, 7]).to_bytes())
    found = golden_of(run / "bundle", spec)
    assert found is not None
    items = pictures_of(found, spec, spec.classes[7])
    assert [item.words for item in items] == ["image of 7, classified as 7"] * 2
    with Image.open(io.BytesIO(items[0].data)) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels(0, spec))
    report = build_report(run)
    assert report.html.count('<img src="data:image/png;base64,') == 2  # those of mistakes are JPEGs
    assert "See the HTML page" in report.markdown


def test_without_golden_images_of_it_that_is_said(run: Path) -> None:
    assert golden_of(run / "bundle", make_spec(run)) is None  # what the fixture wrote is none
    assert "Class 7, the worst class of onnxruntime:cpu:int8: the bundle" in build_report(run).markdown
