from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis_support import examples
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import binomtest, norm

from dskd_export.errors import DataError
from dskd_export.validation.intervals import (
    images_for_drop,
    images_for_share,
    mcnemar_p,
    paired_bounds,
    paired_interval,
    wilson_interval,
)

Z = float(norm.ppf(0.975))


@settings(deadline=None)
@given(st.integers(1, 50_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(counts: tuple[int, int]) -> None:
    successes, n = counts
    found = wilson_interval(successes, n)
    expected = binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")
    assert found.value == successes / n
    assert found.low == pytest.approx(expected.low, abs=1e-12)
    assert found.high == pytest.approx(expected.high, abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_wilson_at_the_ends() -> None:
    assert wilson_interval(0, 10).low == 0
    assert wilson_interval(10, 10).high == 1
    with pytest.raises(DataError, match="no images"):
        wilson_interval(0, 0)
    for successes in (-1, 11):
        with pytest.raises(ValueError, match="no share"):
            wilson_interval(successes, 10)


# --- paired shares


def likeliest_gained(d: float, b: int, c: int, n: int) -> float:
    """The share gained that maximises the multinomial likelihood where (lost - gained) / n is d, by search."""

    def minus_log_likelihood(q: float) -> float:
        shares = (q + d, q, 1 - 2 * q - d)
        counts = (b, c, n - b - c)
        return -sum(k * math.log(max(p, 1e-300)) for k, p in zip(counts, shares, strict=True) if k)

    low, high = max(0.0, -d), (1 - d) / 2
    return float(
        minimize_scalar(minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    )


def score(d: float, b: int, c: int, n: int) -> float:
    """The score statistic from the likelihood's restricted maximum: no formula of Tango's in it."""
    q = likeliest_gained(d, b, c, n)
    variance = (2 * q + d - d * d) / n  # of (lost - gained) / n under multinomial shares q + d and q
    return ((b - c) / n - d) / math.sqrt(max(variance, 1e-30))


@settings(deadline=None, max_examples=examples(40))
@given(
    st.integers(4, 3000).flatmap(lambda n: st.tuples(st.integers(0, n // 2), st.integers(0, n // 2), st.just(n)))
)
def test_paired_bounds_are_where_the_score_is_z(counts: tuple[int, int, int]) -> None:
    b, c, n = counts
    found = paired_interval(b, c, n)
    assert found.value == (b - c) / n
    assert -1 <= found.low <= found.value <= found.high <= 1
    tiny = 1e-9
    for bound, end, sign in ((found.low, -1 + tiny, 1), (found.high, 1 - tiny, -1)):
        expected = brentq(
            lambda d, s=sign: score(d, b, c, n) - s * Z, min(end, found.value), max(end, found.value)
        )
        assert bound == pytest.approx(expected, abs=2e-5)


def test_without_pairs_that_differ() -> None:
    for n in (10, 256, 1300):
        found = paired_interval(0, 0, n)
        assert found.value == 0
        assert found.high == pytest.approx(Z**2 / (n + Z**2), abs=1e-12)
        assert found.low == pytest.approx(-found.high, abs=1e-12)


@settings(deadline=None)
@given(
    st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n // 2), st.integers(0, n // 2), st.just(n)))
)
def test_turned_round_and_in_groups(counts: tuple[int, int, int]) -> None:
    b, c, n = counts
    one, other = paired_interval(b, c, n), paired_interval(c, b, n)
    assert one.low == pytest.approx(-other.high, abs=1e-9)
    assert one.high == pytest.approx(-other.low, abs=1e-9)
    low, high = paired_bounds([b, 0], [c, 0], [n, 7])
    assert (low[0], high[0]) == (one.low, one.high)


@settings(deadline=None)
@given(
    st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n // 2), st.integers(0, n // 2), st.just(n)))
)
def test_the_interval_leaves_zero_out_where_the_score_test_rejects(counts: tuple[int, int, int]) -> None:
    """At a difference of 0 Tango's statistic is McNemar's."""
    b, c, n = counts
    found = paired_interval(b, c, n)
    if b + c and abs(abs(b - c) / math.sqrt(b + c) - Z) > 1e-6:
        assert (found.low > 0 or found.high < 0) == (abs(b - c) / math.sqrt(b + c) > Z)


def test_coverage() -> None:
    """Of 4,000 sets of 300 images the interval holds the true difference in about 95 %."""
    rng = np.random.default_rng(0)
    true = np.array([0.05, 0.02, 0.93])
    counts = rng.multinomial(300, true, size=4000)
    low, high = paired_bounds(counts[:, 0], counts[:, 1], np.full(4000, 300))
    held = np.mean((low <= 0.03) & (high >= 0.03))
    assert 0.935 < held < 0.97


def test_what_cannot_be_counted() -> None:
    with pytest.raises(DataError, match="no images"):
        paired_interval(0, 0, 0)
    for counts in ((-1, 0, 5), (3, 3, 5)):
        with pytest.raises(ValueError, match="counts"):
            paired_interval(*counts)


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_scipys_binomial_test(lost: int, gained: int) -> None:
    expected = binomtest(lost, lost + gained, 0.5).pvalue if lost + gained else 1.0
    assert mcnemar_p(lost, gained) == pytest.approx(expected, rel=1e-9)


# --- how many images would do


@pytest.mark.parametrize(
    ("lost", "gained", "n", "limit"), [(0, 0, 256, 0.01), (5, 3, 500, 0.01), (9, 0, 1000, 0.02)]
)
def test_so_many_images_would_show_the_drop(lost: int, gained: int, n: int, limit: float) -> None:
    assert paired_interval(lost, gained, n).high > limit or n == 1000
    needed = images_for_drop(lost, gained, n, limit)
    assert needed is not None
    assert paired_interval(lost / n * needed, gained / n * needed, needed).high <= limit + 1e-9
    if needed > n:
        assert paired_interval(lost / n * needed * 0.99, gained / n * needed * 0.99, needed * 0.99).high > limit


def test_without_loss_it_is_the_closed_form() -> None:
    assert images_for_drop(0, 0, 100, 0.01) == math.ceil(Z**2 * 0.99 / 0.01)


def test_so_many_images_would_show_the_share() -> None:
    assert wilson_interval(48, 50).low < 0.95
    needed = images_for_share(48, 50, 0.95)
    assert needed is not None
    assert wilson_interval(0.96 * needed, needed).low >= 0.95 - 1e-9
    assert wilson_interval(0.96 * needed * 0.99, needed * 0.99).low < 0.95


def test_no_number_of_images_would_do() -> None:
    assert images_for_drop(5, 0, 500, 0.01) is None
    assert images_for_drop(9, 0, 500, 0.01) is None
    assert images_for_share(95, 100, 0.95) is None
    assert images_for_share(9, 10, 0.95) is None
    assert images_for_drop(1, 0, 1_000_001, 1e-6) is None  # a hair below the limit: more than anybody has
