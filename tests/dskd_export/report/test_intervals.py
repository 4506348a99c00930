from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import binomtest

from dskd_export.documents.base import Interval
from dskd_export.report.series import difference, ratio


def wilson(right: int, images: int) -> Interval:
    found = binomtest(right, images).proportion_ci(method="wilson")
    return Interval(value=right / images, low=float(found.low), high=float(found.high))


def test_difference_is_newcombes_published_example() -> None:
    """Newcombe 1998, table II, comparison (a), method 10: 56/70 - 48/80 -> 0.0524 to 0.3339."""
    found = difference(wilson(56, 70), wilson(48, 80))
    assert found.value == pytest.approx(0.2)
    assert found.low == pytest.approx(0.0524, abs=5e-5)
    assert found.high == pytest.approx(0.3339, abs=5e-5)


@given(st.integers(20, 400), st.data())
def test_limits_of_the_ratio_solve_the_mover_equation(images: int, data: st.DataObject) -> None:
    a = wilson(data.draw(st.integers(1, images)), images)
    b = wilson(data.draw(st.integers(images // 2, images)), images)
    found = ratio(a, b)
    assert found is not None
    assert found.value == pytest.approx(a.value / b.value)

    def low(r: float) -> float:
        return a.value - r * b.value - math.hypot(a.value - a.low, r * (b.high - b.value))

    def high(r: float) -> float:
        return a.value - r * b.value + math.hypot(a.high - a.value, r * (b.value - b.low))

    assert found.low == pytest.approx(brentq(low, 0.0, found.value), abs=1e-7)
    assert found.high == pytest.approx(brentq(high, found.value, 1e4), rel=1e-6)


def test_ratio_covers_the_truth() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.binomial(360, 0.95, 400), generator.binomial(360, 0.98, 400)
    covered = 0
    for right_a, right_b in zip(a, b, strict=True):
        found = ratio(wilson(int(right_a), 360), wilson(int(right_b), 360))
        assert found is not None
        covered += found.low <= 0.95 / 0.98 <= found.high
    assert 0.92 <= covered / 400 <= 0.985


def test_no_ratio_to_a_teacher_that_may_be_always_wrong() -> None:
    assert ratio(wilson(10, 20), wilson(0, 20)) is None
