"""Where a training stands, by records whose times are known."""

from __future__ import annotations

import pytest

from dskd_compress.dashboard.course import Course
from dskd_export.documents.training import DiagnosisRecord, EpochRecord, Finding, StepRecord

STEPS = 5


def step(number: int, **monitors: float) -> StepRecord:
    return StepRecord(
        step=number,
        epoch=(number - 1) // STEPS,
        losses={"ce": 1.0, "loss": 3.0, "kd": 2.0},
        grad_norm=1.0,
        learning_rate=0.1,
        images_per_s=100.0,
        monitors=monitors,
    )


def epoch(number: int, seconds: float, *, best: bool = False) -> EpochRecord:
    return EpochRecord(
        epoch=number,
        step=STEPS * (number + 1),
        train_loss=1.0,
        val_loss=1.0,
        top1=0.5,
        top5=None,
        best=best,
        seconds=seconds,
    )


def test_nothing_is_known_of_nothing() -> None:
    course = Course(4)
    assert (course.epoch, course.step, course.done, course.seconds_left, course.best) == (0, 0, None, None, None)


def test_the_end_is_told_after_the_first_epoch() -> None:
    course = Course(4)
    course.add(step(number) for number in range(1, STEPS + 1))
    assert course.seconds_left is None
    course.add([epoch(0, 10.0, best=True)])
    assert course.seconds_left == pytest.approx(30.0)
    assert course.done == pytest.approx(0.25)


def test_of_an_epoch_that_is_under_way_the_rest_counts() -> None:
    course = Course(4)
    course.add([*map(step, range(1, 6)), epoch(0, 10.0), step(6), step(7)])
    assert course.seconds_left == pytest.approx((3 - 2 / 5) * 10)
    assert course.done == pytest.approx(7 / 20)


def test_a_slow_first_epoch_does_not_spoil_the_rest() -> None:
    course = Course(10)
    course.add([epoch(0, 100.0), epoch(1, 10.0), epoch(2, 10.0), epoch(3, 12.0)])
    assert course.seconds_left == pytest.approx(6 * 10.0)


def test_at_the_end_nothing_is_left() -> None:
    course = Course(2)
    course.add([*map(step, range(1, 6)), epoch(0, 10.0), *map(step, range(6, 11)), epoch(1, 10.0)])
    assert (course.seconds_left, course.done, course.epoch) == (0.0, 1.0, 2)


def test_without_a_plan_there_is_no_end() -> None:
    course = Course(None)
    course.add([epoch(0, 10.0)])
    assert (course.seconds_left, course.done) == (None, None)


def test_the_kept_epoch_is_the_last_that_was_best() -> None:
    course = Course(4)
    course.add([epoch(0, 1.0, best=True), epoch(1, 1.0, best=True), epoch(2, 1.0)])
    assert course.best is not None
    assert course.best.epoch == 1


def test_the_total_comes_first_and_monitors_are_of_the_steps_that_have_them() -> None:
    course = Course(1)
    course.add([step(1, spread=0.1), step(2), step(3, spread=0.3)])
    assert list(course.terms) == ["loss", "ce", "kd"]
    assert course.terms["loss"] == [3.0] * 3
    assert course.monitors == {"spread": [0.1, 0.3]}


def test_a_fault_is_told_once() -> None:
    fault = Finding(
        kind="dead_term",
        step=3,
        term="kd",
        severity="warning",
        seen="kd is 0",
        means="it says nothing",
        cure="raise",
    )
    course = Course(1)
    for number in (3, 4):
        course.add(
            [
                DiagnosisRecord(
                    step=number, epoch=0, gradient_norms={}, gradient_at={}, teacher=None, findings=[fault]
                )
            ]
        )
    assert course.findings == [fault]
