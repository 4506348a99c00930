from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from dskd_export.documents.base import Accuracy, Interval, read_document
from dskd_export.documents.training import EpochRecord, StepRecord, TeacherFacts, TrainingDocument, read_record
from dskd_export.documents.validation import Parity
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
    with pytest.raises(DataError, match=r"accuracy\.json"):
        read_document(tmp_path / "accuracy.json", Accuracy)


@pytest.mark.parametrize(
    ("text", "where"), [("{", ""), ('{"top1": 1, "images": 2}', "top1"), ('{"images": 2}', "top1")]
)
def test_a_damaged_file_is_named_with_the_field(tmp_path: Path, text: str, where: str) -> None:
    path = tmp_path / "accuracy.json"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"accuracy\.json.*Accuracy: {where}"):
        read_document(path, Accuracy)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_are_finite_but_for_those_that_say_otherwise(number: float) -> None:
    with pytest.raises(ValidationError):
        Interval(value=number, low=0, high=1)
    assert not math.isfinite(make_parity(max_abs=number).max_abs)


def test_what_a_diverging_training_logs_can_be_read() -> None:
    epoch = EpochRecord(
        epoch=0, step=1, train_loss=1, val_loss=math.inf, top1=0.1, top5=None, best=True, seconds=1
    )
    step = StepRecord(
        step=1,
        epoch=0,
        losses={"loss": 1.0},
        grad_norm=None,
        learning_rate=0.1,
        images_per_s=9.0,
        monitors={"spread": math.nan},
    )
    again = read_record(epoch.model_dump_json().encode())
    assert isinstance(again, EpochRecord)
    assert math.isnan(again.val_loss)
    again = read_record(step.model_dump_json().encode())
    assert isinstance(again, StepRecord)
    assert math.isnan(again.monitors["spread"])
    TeacherFacts(accuracy=0.1, confidence=math.nan, input_mean=math.inf, input_std=math.nan)


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", "1e320", "1" + "0" * 320, "[" * 5000, '{"a":' * 5000, '"\xff"']
)
def test_what_json_cannot_say_is_refused_in_any_place(tmp_path: Path, value: str) -> None:
    path = tmp_path / "distill.json"
    for field in ("method_settings", "steps", "best"):
        path.write_bytes(b'{"' + field.encode() + b'": {"x": ' + value.encode("latin-1") + b"}}")
        with pytest.raises(DataError, match=r"distill\.json.*TrainingDocument"):
            read_document(path, TrainingDocument)


def test_a_document_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "accuracy.json"
    path.touch()
    os.truncate(path, 6_000_000_000)
    with pytest.raises(DataError, match=r"6,000,000,000 bytes.*16,777,216"):
        read_document(path, Accuracy)
