"""How many images a verdict needs, against the functions that give the verdicts."""

from __future__ import annotations

import pytest

from dskd_export.settings import BudgetSettings
from dskd_export.validation.intervals import paired_interval, wilson_interval
from dskd_export.validation.sample_size import describe_images, images_needed

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")


def test_the_counts_are_those_that_judge() -> None:
    """One image fewer is not enough, at no image lost."""
    needed = images_needed(BudgetSettings(), PRECISIONS)
    assert {(one.of, one.limit) for one in needed} >= {("student", "student_drop"), ("fp16", "top1_drop")}
    assert "fp32" not in {one.of for one in needed}  # judged image by image, by the limits of validate
    for one in needed:
        assert one.at_best is not None
        shown = []
        for images in (one.at_best - 1, one.at_best):
            if one.limit == "agreement":
                shown.append(wilson_interval(images, images).low >= one.value)
            else:
                shown.append(paired_interval(0, 0, images).high <= one.value)
        assert shown == [False, True], one
        assert one.typical is None or one.typical >= one.at_best


def test_the_counts_of_the_default_budget() -> None:
    found = {one.words: one.at_best for one in images_needed(BudgetSettings(), ("fp16", "int8"))}
    # z²(1/d - 1) and z² a/(1 - a)
    assert found == {
        "student_drop": 189,
        "fp16's top1_drop": 381,
        "fp16's agreement": 73,
        "int8's top1_drop": 189,
        "int8's agreement": 22,
    }


def test_a_student_that_differs_needs_more() -> None:
    (student,) = images_needed(BudgetSettings(), ())
    assert student.typical is not None
    half = student.typical * 0.05
    assert paired_interval(half, half, student.typical).high <= 0.02
    assert paired_interval(half * 0.95, half * 0.95, student.typical * 0.95).high > 0.02


def test_keys_can_be_set() -> None:
    budget = BudgetSettings()
    for one in images_needed(budget, PRECISIONS):
        *sections, key = one.key.split(".")[1:]
        section = getattr(budget, sections[0]) if sections else budget
        assert key in type(section).model_fields


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (150, "150 validation images are too few to show student_drop (needs 190), fp16's top1_drop (needs 390)."),
        (200, "200 validation images are too few to show fp16's top1_drop (needs 390)."),
        (400, "400 validation images can show the limits of the budget where no image is lost; student_drop ty"),
        (2000, "2,000 validation images can show the limits of the budget where no image is lost."),
    ],
)
def test_one_sentence(images: int, said: str) -> None:
    assert describe_images(images_needed(BudgetSettings(), ["fp16"]), images).startswith(said)


def test_limits_that_nothing_can_show_and_none() -> None:
    strict = BudgetSettings(student_drop=0, agreement=1)
    found = images_needed(strict, ["fp16"])
    assert describe_images(found, 10**6).endswith("no number of images can show student_drop, fp16's agreement.")
    free = BudgetSettings(student_drop=None)
    assert describe_images(images_needed(free, ["fp32"]), 3) == ""
    assert images_needed(BudgetSettings(), [], teacher=False) == []
