from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dskd_export.errors import BundleError
from dskd_export.spec import METADATA_KEY, ModelSpec

share = st.floats(0.01, 1, allow_nan=False)


@given(
    height=st.integers(1, 2000),
    width=st.integers(1, 2000),
    mean=st.tuples(share, share, share),
    std=st.tuples(share, share, share),
    crop_pct=share,
    mode=st.sampled_from(["center", "squash", "border"]),
    classes=st.lists(st.text(max_size=9), min_size=1, max_size=5, unique=True),
)
def test_json_and_metadata_give_the_same_spec_back(make_spec, height, width, mean, std, crop_pct, mode, classes):
    spec = make_spec(
        height=height, width=width, mean=mean, std=std, crop_pct=crop_pct, crop_mode=mode, classes=tuple(classes)
    )
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert ModelSpec.from_metadata(spec.to_metadata(), "model.onnx") == spec
    assert ModelSpec.from_json(spec.to_json()).to_json() == spec.to_json()


def test_exif_is_written_only_where_it_is_applied(make_spec: Callable[..., ModelSpec]) -> None:
    """Specs that ignore it keep their bytes; readers from before the key refuse the others."""
    plain, applied = make_spec(), make_spec(exif="apply")
    assert plain.exif == "ignore"
    assert "exif" not in plain.to_json() + "".join(plain.to_metadata().values())
    assert json.loads(applied.to_json())["exif"] == "apply"
    assert (
        ModelSpec.from_json(applied.to_json())
        == ModelSpec.from_metadata(applied.to_metadata(), "m.onnx")
        == applied
    )
    assert ModelSpec.from_json(plain.to_json()) == plain != applied


@pytest.mark.parametrize(
    "changes",
    [
        {"std": (0.2, 0, 0.2)},
        {"std": (0.2, -1, 0.2)},
        {"height": 0},
        {"crop_pct": 0},
        {"crop_pct": float("inf")},
        {"mean": (0.5, float("nan"), 0.5)},
        {"std": (0.2, float("inf"), 0.2)},
        {"classes": ()},
        {"classes": ("a", "b", "a")},
        {"channels": 1},
        {"interpolation": "random"},
        {"crop_mode": "middle"},
        {"exif": "turn"},
        {"input_dtype": "float16"},
        {"input_layout": "CHWN"},
        {"output_name": "scores"},
        {"class_descriptions": ("one word for seven classes",)},
        {"schema_version": 2},
        {"unknown": 1},
    ],
)
def test_refuses_nonsense_and_names_the_field(make_spec: Callable[..., ModelSpec], changes: dict) -> None:
    with pytest.raises(ValidationError):
        make_spec(**changes)
    fields = json.loads(make_spec().to_json()) | changes
    with pytest.raises(BundleError, match=rf"^here: ({next(iter(changes))}|document)\b"):
        ModelSpec.from_json(json.dumps(fields), "here")


def test_a_crop_that_leaves_nothing_of_any_image(make_spec: Callable[..., ModelSpec]) -> None:
    assert make_spec(height=8, width=6, crop_pct=6.0).crop_pct == 6
    with pytest.raises(ValidationError, match="crop_pct"):
        make_spec(height=8, width=6, crop_pct=6.1)


def test_is_frozen(spec: ModelSpec) -> None:
    with pytest.raises(ValidationError):
        spec.height = 1  # type: ignore[misc]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\ud800"])
def test_broken_json(text: str) -> None:
    with pytest.raises(BundleError, match=r"^spec\.json: (document: must be a mapping|not valid JSON)"):
        ModelSpec.from_json(text)


def test_metadata_of_another_tool() -> None:
    with pytest.raises(BundleError, match=f"model.onnx.*'{METADATA_KEY}'"):
        ModelSpec.from_metadata({"author": "someone"}, "model.onnx")


def test_read(spec: ModelSpec, tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    with pytest.raises(BundleError, match="No such file"):
        ModelSpec.read(path)
    path.write_text(spec.to_json(), encoding="utf-8")
    assert ModelSpec.read(path) == spec
