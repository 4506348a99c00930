"""Curves of characters and lines of text."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from dskd_compress.dashboard.course import Course
from dskd_compress.dashboard.view import State, describe_stop, draw, draw_sparkline, format_duration
from dskd_export.documents.training import DiagnosisRecord, EpochRecord, Finding, StepRecord


def shown(course: Course, silent_s: float, width: int = 120, state: State = "running") -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(draw("run · distill", course, ["CPU  1.0 of 2 cores busy"], silent_s, state))
    return capture.get()


def training(total: int = 3) -> Course:
    course = Course(total)
    course.add(
        StepRecord(step=n, epoch=0, losses={"loss": 4 / n}, grad_norm=1.0, learning_rate=0.1, images_per_s=1234.0)
        for n in range(1, 5)
    )
    course.add(
        [
            EpochRecord(
                epoch=0, step=4, train_loss=2.0, val_loss=1.5, top1=0.625, top5=None, best=True, seconds=30.0
            )
        ]
    )
    return course


def test_a_curve_is_scaled_to_its_own_range() -> None:
    assert draw_sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert draw_sparkline([-5.0, -5.0]) == "▁▁"
    assert draw_sparkline([]) == ""


def test_many_values_share_a_column_by_their_mean() -> None:
    assert draw_sparkline([0, 0, 0, 10, 7, 7], width=3) == "▁▆█"


def test_what_is_not_finite_leaves_a_gap() -> None:
    assert draw_sparkline([0.0, math.nan, 1.0]) == "▁ █"
    assert draw_sparkline([math.inf]) == " "


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=200), st.integers(1, 60))
def test_it_is_never_wider_than_allowed(values: list[float], width: int) -> None:
    assert len(draw_sparkline(values, width)) == min(width, len(values))


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00"), (61.4, "0:01:01"), (36_000, "10:00:00")])
def test_a_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_progress() -> None:
    text = shown(training(), 2.0)
    assert "epoch 1 of 3 done · step 4 · 1,234 images/s · ETA 0:01:00" in text
    assert "62.50%, epoch 1" in text
    assert "CPU  1.0 of 2 cores busy" in text
    assert "no record for" not in text


def test_a_silent_training_is_shown_as_such() -> None:
    assert "no record for 0:02:05" in shown(training(), 125.0)


def test_an_ended_one_has_no_time_left() -> None:
    text = shown(training(), 0.0, state="ended")
    assert "ended" in text
    assert "ETA" not in text


def test_a_stopped_one_says_where() -> None:
    text = shown(training(), 125.0, state="stopped")
    assert "epoch 1 of 3 done · stopped at step 4 of 12" in text
    assert "ETA" not in text
    assert "no record for" not in text
    assert "stopped before the first step" in shown(Course(3), 0.0, state="stopped")


def test_the_total_is_known_from_the_first_step() -> None:
    course = Course(None)
    course.add(
        [
            StepRecord(
                step=39,
                epoch=0,
                losses={"loss": 1.0},
                grad_norm=1.0,
                learning_rate=0.1,
                images_per_s=1.0,
                total_steps=1200,
            )
        ]
    )
    assert (describe_stop(course), course.done) == ("stopped at step 39 of 1200", 39 / 1200)


def test_a_diverged_one_says_why() -> None:
    course = training()
    finding = Finding(
        kind="diverged",
        step=5,
        severity="stop",
        seen="The training diverged: the loss term 'ce' is nan.",
        means="No further step is possible.",
        cure="Lower train.lr.",
    )
    course.add(
        [DiagnosisRecord(step=5, epoch=1, gradient_norms={}, gradient_at={}, teacher=None, findings=[finding])]
    )
    text = shown(course, 1.0, state="stopped")
    assert "stopped by a fault at step 4 of 12" in text
    assert "step 5: The training diverged: the loss term 'ce' is nan. Lower train.lr." in text


def test_before_the_first_record() -> None:
    assert "no record yet" in shown(Course(3), 0.0)


def test_a_narrow_terminal_shows_every_value() -> None:
    assert "learning rate" in shown(training(), 1.0, width=80)
