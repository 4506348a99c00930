from __future__ import annotations

import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from dskd_export.documents import Accuracy, Interval, Parity, read_document
from dskd_export.errors import DataError


def make_parity(**changes: object) -> Parity:
    distances = ("max_abs", "output_scale", "max_abs_relative", "mean_abs_relative", "kl_max", "kl_mean")
    numbers: dict[str, object] = dict.fromkeys((*distances, "cosine_min", "cosine_mean"), 0.5)
    numbers["top5_agreement"] = None
    fields = {"reference": "a", "candidate": "b", "batch": 1, "images": 2, "top1_agreement": 1.0, "finite": True}
    return Parity.model_validate(fields | numbers | changes)


def test_round_trip(tmp_path: Path) -> None:
    document = Accuracy(top1=Interval(value=0.5, low=0.25, high=0.75), images=10)
    path = tmp_path / "accuracy.json"
    path.write_text(document.model_dump_json())
    assert read_document(path, Accuracy) == document


def test_what_could_not_be_measured_is_null_and_comes_back(tmp_path: Path) -> None:
    document = make_parity(max_abs=math.nan, kl_max=math.nan, finite=False)
    path = tmp_path / "parity.json"
    path.write_text(document.model_dump_json())
    assert '"max_abs":null' in path.read_text()
    again = read_document(path, Parity)
    assert math.isnan(again.max_abs)
    assert math.isnan(again.kl_max)
    assert again.cosine_min == 0.5
    assert not again.finite


def test_frozen_and_closed() -> None:
    document = make_parity()
    with pytest.raises(ValidationError):
        document.batch = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="extra"):
        make_parity(surprise=1)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"accuracy\.json: no such file"):
        read_document(tmp_path / "accuracy.json", Accuracy)


@pytest.mark.parametrize(
    ("text", "where"), [("{", ""), ('{"top1": 1, "images": 2}', "top1"), ('{"images": 2}', "top1")]
)
def test_a_damaged_file_is_named_with_the_field(tmp_path: Path, text: str, where: str) -> None:
    path = tmp_path / "accuracy.json"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"accuracy\.json: not a valid Accuracy: {where}"):
        read_document(path, Accuracy)
