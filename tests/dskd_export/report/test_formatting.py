from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dskd_export.documents.base import Interval
from dskd_export.report import formatting as fmt


@given(st.floats(1e-12, 1e12), st.sampled_from([1, -1]))
def test_significant_keeps_three_digits(size: float, sign: int) -> None:
    value = sign * size
    read_back = float(fmt.significant(value).replace(",", ""))
    assert math.isclose(read_back, value, rel_tol=5.1e-3)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.849, "0.849"), (3.2, "3.20"), (1167.0, "1,167"), (7.4e-7, "7.40e-7"), (0.0001, "0.000100")],
)
def test_significant_examples(value: float, text: str) -> None:
    assert fmt.significant(value) == text


def test_limits_are_shown_as_they_were_set() -> None:
    assert [fmt.exact(v) for v in (1e-4, 0.9999, 1.0, 3e-6)] == ["0.0001", "0.9999", "1", "3e-6"]


def test_ratio_says_the_direction_in_words() -> None:
    assert fmt.times(40, 10, "smaller", "larger", "as large") == "4.00× smaller"
    assert fmt.times(10, 40, "smaller", "larger", "as large") == "4.00× larger"
    assert fmt.times(10, 10.001, "smaller", "larger", "as large") == "as large"
    with pytest.raises(ValueError, match="no ratio"):
        fmt.times(0, 1, "smaller", "larger", "as large")


def test_units_stand_with_their_numbers() -> None:
    assert fmt.percent(0.978) == "97.8\u00a0%"
    assert fmt.percent_interval(Interval(value=0.5, low=0.4, high=0.6)) == "50.0\u00a0% (40.0–60.0\u00a0%)"
    assert [fmt.points(v) for v in (-0.011, 0.0004, -0.0004)] == ["−1.1", "+0.0", "+0.0"]
    assert fmt.scaled(11_181_642) == "11.2\u00a0M"
    assert [fmt.file_size(n) for n in (6, 2_400_000)] == ["6\u00a0B", "2.40\u00a0MB"]
    assert [fmt.duration(s) for s in (41.5, 83.2, 7500)] == [
        "41.5\u00a0s",
        "1\u00a0min 23\u00a0s",
        "2\u00a0h 5\u00a0min",
    ]
    assert fmt.runner_name("onnxruntime", "cpu", "fp32", 1) == "ONNX Runtime, CPU, fp32, 1 thread"
    assert fmt.runner_name("tensorrt", "cuda", "int8", None) == "TensorRT, CUDA, int8"
