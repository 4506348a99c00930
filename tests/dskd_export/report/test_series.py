from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dskd_export.report.series import distribution, smooth, thin, window_for

numbers = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=80)


@given(numbers, st.integers(1, 25))
def test_smoothing_is_the_mean_of_the_neighbours(values: list[float], window: int) -> None:
    array, half = np.array(values), (window - 1) // 2
    expected = [array[max(0, i - half) : i + half + 1].mean() for i in range(len(array))]
    np.testing.assert_allclose(smooth(array, window), expected, atol=1e-9)


def test_smoothing_leaves_gaps_as_gaps() -> None:
    result = smooth(np.array([1.0, np.nan, 3.0, 5.0]), 3)
    np.testing.assert_allclose(result, [1.0, np.nan, 4.0, 4.0])


@given(st.integers(1, 5000), st.integers(2, 600))
def test_thinning_keeps_the_ends_and_the_limit(count: int, most: int) -> None:
    index = thin(count, most)
    assert len(index) == min(count, most)
    assert index[0] == 0
    assert index[-1] == count - 1
    assert (np.diff(index) > 0).all()


def test_short_curves_are_not_smoothed() -> None:
    assert window_for(40) == 1
    assert window_for(1350) == 27


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=2000))
def test_distribution_is_the_empirical_one(samples: list[float]) -> None:
    values, shares = distribution(np.array(samples))
    reference = stats.ecdf(samples).cdf
    # Among equal samples a thinned curve may stop below the top of the step; the step's top must be right.
    last_of_equals = np.append(values[1:] != values[:-1], True)
    assert (shares <= reference.evaluate(values) + 1e-12).all()
    assert shares[-1] == 1.0
    unique = len(set(samples)) == len(samples)
    if unique:
        np.testing.assert_allclose(shares[last_of_equals], reference.evaluate(values[last_of_equals]))
    assert values[0] == min(samples)
    assert values[-1] == max(samples)


def test_distribution_keeps_the_tail() -> None:
    samples = np.arange(1, 100_001, dtype=float)
    values, shares = distribution(samples)
    assert len(values) <= 210
    for q in (0.5, 0.9, 0.99, 0.999):
        assert values[np.isclose(shares, q)].tolist() == [q * 100_000]
