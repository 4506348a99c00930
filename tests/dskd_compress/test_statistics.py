from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dskd_compress.statistics import mean_with_interval


def test_agrees_with_scipys_one_sample_t_test() -> None:
    values = [0.41, 0.43, 0.40, 0.47, 0.44]
    found = mean_with_interval(values)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.value == pytest.approx(np.mean(values))


def test_paired_differences_agree_with_scipys_paired_test() -> None:
    first, second = [0.41, 0.43, 0.40], [0.40, 0.41, 0.39]
    found = mean_with_interval([a - b for a, b in zip(first, second, strict=True)])
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_one_value_tells_nothing_of_its_spread() -> None:
    assert mean_with_interval([0.4]) is None
    assert mean_with_interval([]) is None


def test_covers_the_truth_95_times_of_100() -> None:
    draws = np.random.default_rng(0).normal(1.0, 2.0, (2000, 4))
    found = [mean_with_interval(row.tolist()) for row in draws]
    share = np.mean([interval is not None and interval.low <= 1.0 <= interval.high for interval in found])
    assert share == pytest.approx(0.95, abs=0.015)
