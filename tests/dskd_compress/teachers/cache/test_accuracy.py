from __future__ import annotations

from pathlib import Path

from dskd_compress.teachers.cache.accuracy import recall_accuracy
from dskd_export.documents.base import Accuracy, Interval


def accuracy(value: float) -> Accuracy:
    return Accuracy(top1=Interval(value=value, low=0.0, high=1.0), images=10)


def test_it_is_measured_once_for_the_same_facts(tmp_path: Path) -> None:
    place = tmp_path / "caches"
    first = recall_accuracy(place, {"weights": "a"}, lambda: accuracy(0.1))
    again = recall_accuracy(place, {"weights": "a"}, lambda: accuracy(0.2))
    other = recall_accuracy(place, {"weights": "b"}, lambda: accuracy(0.3))
    assert (first, again, other) == (accuracy(0.1), accuracy(0.1), accuracy(0.3))


def test_a_damaged_file_is_measured_again(tmp_path: Path) -> None:
    recall_accuracy(tmp_path, {}, lambda: accuracy(0.1))
    (file,) = tmp_path.iterdir()
    file.write_text("{", encoding="utf-8")
    assert recall_accuracy(tmp_path, {}, lambda: accuracy(0.2)) == accuracy(0.2)
    assert recall_accuracy(tmp_path, {}, lambda: accuracy(0.3)) == accuracy(0.2)
