from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from run_support import Finished
from scipy import stats

from dskd_compress import __version__
from dskd_compress.comparison import (
    check_fair,
    compute_differences,
    compute_mean_interval,
    count_seeds_needed,
    find_difference,
    format_markdown,
    format_rows,
    list_notes,
)
from dskd_export.documents.base import read_document
from dskd_export.documents.training import ComparedMethod, ComparisonDocument, TrainingDocument
from dskd_export.errors import DataError


def method(label: str, top1: list[float]) -> ComparedMethod:
    return ComparedMethod(
        label=label,
        method="kd",
        settings={},
        seeds=list(range(len(top1))),
        top1=top1,
        mean=sum(top1) / len(top1),
        interval=compute_mean_interval(top1),
        seconds=[10.0] * len(top1),
        images_per_s=[100.0] * len(top1),
        peak_memory_mb=[None, *[5.0] * (len(top1) - 1)],
    )


@pytest.fixture
def trained(finished: Finished) -> TrainingDocument:
    return read_document(finished.folder / "distill.json", TrainingDocument)


def comparison(trained: TrainingDocument, *methods: ComparedMethod) -> ComparisonDocument:
    return ComparisonDocument(
        recipe="r",
        teacher="t",
        teacher_top1=0.7,
        student="s",
        epoch="last",
        steps=22,
        data=trained.data,
        methods=list(methods),
        differences=list(compute_differences(methods)),
        jobs=1,
        commits=[None],
        provenance=trained.provenance,
    )


def test_differences_are_paired_by_seed(trained: TrainingDocument) -> None:
    """The methods differ by one point on every seed, though the seeds differ by ten."""
    document = comparison(trained, method("a", [0.41, 0.51, 0.61]), method("b", [0.40, 0.50, 0.60]))
    pair = find_difference(document, "a", "b")
    assert pair.mean == pytest.approx(0.01)
    assert pair.interval is not None
    assert pair.interval.low == pytest.approx(0.01)
    back = find_difference(document, "b", "a")
    assert back.mean == pytest.approx(-0.01)
    assert back.differences == pytest.approx([-0.01] * 3)
    with pytest.raises(KeyError):
        find_difference(document, "a", "c")


def test_every_pair_is_there_once() -> None:
    pairs = [(p.first, p.second) for p in compute_differences([method(name, [0.1, 0.2]) for name in "abc"])]
    assert pairs == [("a", "b"), ("a", "c"), ("b", "c")]


def test_table(trained: TrainingDocument) -> None:
    rows = format_rows(comparison(trained, method("a", [0.4, 0.5, 0.6]), method("b", [0.45, 0.57, 0.65])), "b")
    assert rows[0] == ["a", "50.00 ± 24.84", "+5.67 (+2.80 to +8.54)", "10", "100", "5"]
    assert rows[1][2] == ""
    pair = format_rows(comparison(trained, method("a", [0.4, 0.5]), method("b", [0.45, 0.55])), "b")
    assert pair[0][1:3] == ["45.00", "+5.00 (2 seeds)"], "that two agree proves nothing"
    single = format_rows(comparison(trained, method("a", [0.4]), method("b", [0.45])), "b")
    assert single[0] == ["a", "40.00", "+5.00 (1 seed)", "10", "100", "not measured"]


def test_the_commonest_class_is_a_row(trained: TrainingDocument) -> None:
    plain = comparison(trained, method("a", [0.4, 0.5, 0.6]), method("b", [0.45, 0.57, 0.65]))
    assert len(format_rows(plain, "b")) == 2
    document = plain.model_copy(update={"commonest_class": "dog", "commonest_top1": 0.5})
    assert format_rows(document, "b")[-1] == ["always 'dog'", "50.00", "+5.67", "", "", ""]
    assert ComparisonDocument.model_validate_json(document.model_dump_json()) == document
    assert [note for note in list_notes(document, "b") if "dog" in note] == [
        "a is not above always answering 'dog'."
    ]
    assert "| always 'dog' |" in format_markdown(document, "b")


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_show_nothing(trained: TrainingDocument, seeds: int) -> None:
    few = comparison(trained, method("a", [0.4, 0.5][:seeds]), method("b", [0.45, 0.57][:seeds]))
    (note,) = list_notes(few, "b")
    assert "--seeds 0,1,2" in note
    page = format_markdown(few, "b")
    assert note in page
    assert "±" not in page
    assert "Intervals" not in page


def test_a_difference_within_chance_says_how_many_seeds(trained: TrainingDocument) -> None:
    far = comparison(trained, method("a", [0.4, 0.5, 0.6]), method("b", [0.45, 0.57, 0.65]))
    assert list_notes(far, "b") == []
    near = comparison(trained, method("a", [0.4, 0.5, 0.6]), method("b", [0.43, 0.49, 0.63]))
    (note,) = list_notes(near, "b")
    assert f"about {count_seeds_needed([0.03, -0.01, 0.03])} seeds" in note
    none = comparison(trained, method("a", [0.4, 0.5, 0.6]), method("b", [0.41, 0.49, 0.6]))
    assert "more than 100 seeds" in list_notes(none, "b")[0]


def test_the_seeds_needed_are_the_first_that_exclude_zero() -> None:
    differences = [0.03, -0.01, 0.03, 0.01]
    needed = count_seeds_needed(differences)
    assert needed is not None
    mean, spread = np.mean(differences), np.std(differences, ddof=1)
    for seeds, excluded in ((needed - 1, False), (needed, True)):
        low, _ = stats.t.interval(0.95, seeds - 1, loc=mean, scale=spread / seeds**0.5)
        assert bool(low > 0) is excluded
    assert count_seeds_needed([0.1, 0.2]) is None
    assert count_seeds_needed([0.0, 0.0, 0.0]) is None
    assert count_seeds_needed([0.1, 0.1, 0.1]) == 3


def test_the_page_names_the_commit_or_the_release(trained: TrainingDocument) -> None:
    document = comparison(trained, method("a", [0.4]), method("b", [0.45]))
    installed = document.model_copy(
        update={"provenance": trained.provenance.model_copy(update={"commit": None}), "commits": [None]}
    )
    page = format_markdown(installed, "b")
    assert "None" not in page
    assert "commit" not in page
    assert f"`, dskd-compress {__version__}, " in page
    assert ", commit 0a1, 0b2, " in format_markdown(document.model_copy(update={"commits": ["0a1", "0b2"]}), "b")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"steps": 23}, "number of steps"),
        ({"initial_sha256": "other"}, "initial student of seed 0"),
        ({"teacher": None}, "teacher"),
    ],
)
def test_unfair_comparisons_are_refused(trained: TrainingDocument, change: dict[str, Any], named: str) -> None:
    check_fair({("a", 0): trained, ("b", 0): trained})
    with pytest.raises(DataError, match=f"{named}.*a seed 0.*b seed 0"):
        check_fair({("a", 0): trained, ("b", 0): trained.model_copy(update=change)})


def test_another_seed_may_start_from_another_student(trained: TrainingDocument) -> None:
    check_fair({("a", 0): trained, ("a", 1): trained.model_copy(update={"initial_sha256": "other"})})


# --- means over seeds


def test_agrees_with_scipys_one_sample_t_test() -> None:
    values = [0.41, 0.43, 0.40, 0.47, 0.44]
    found = compute_mean_interval(values)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.value == pytest.approx(np.mean(values))


def test_paired_differences_agree_with_scipys_paired_test() -> None:
    first, second = [0.41, 0.43, 0.40], [0.40, 0.41, 0.39]
    found = compute_mean_interval([a - b for a, b in zip(first, second, strict=True)])
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_one_value_tells_nothing_of_its_spread() -> None:
    assert compute_mean_interval([0.4]) is None
    assert compute_mean_interval([]) is None


def test_covers_the_truth_95_times_of_100() -> None:
    draws = np.random.default_rng(0).normal(1.0, 2.0, (2000, 4))
    found = [compute_mean_interval(row.tolist()) for row in draws]
    share = np.mean([interval is not None and interval.low <= 1.0 <= interval.high for interval in found])
    assert share == pytest.approx(0.95, abs=0.015)
