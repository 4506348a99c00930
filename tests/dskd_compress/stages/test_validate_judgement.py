from __future__ import annotations

from types import SimpleNamespace

import pytest

from dskd_compress.config import ExportSection
from dskd_compress.stages.export import spec_of
from dskd_compress.stages.validate_judgement import _unlike_spec
from dskd_compress.weights import WeightsInfo


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
    bundle = SimpleNamespace(spec=spec_of(info, ExportSection(), "a" * 64))
    assert _unlike_spec(bundle, info) == []  # type: ignore[arg-type]


def test_other_classes_are_named() -> None:
    bundle = SimpleNamespace(spec=spec_of(_info(("cat", "dog")), ExportSection(), "a" * 64))
    (text,) = _unlike_spec(bundle, _info(("dog", "cat")))  # type: ignore[arg-type]
    assert "classes" in text
