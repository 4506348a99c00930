"""Where the time goes, against medians and shares that numpy computes from the same planted times."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis_support import examples

from dskd_export.benchmark.profile import (
    MOST_LAYERS,
    MOST_OPERATORS,
    classify_layer,
    describe_overhead,
    explain_slower,
    is_plausible,
    measure_overhead,
    summarize_calls,
)
from dskd_export.documents.base import Interval
from dskd_export.documents.benchmark import LayerProfile
from dskd_export.runtime.layer_times import ProfiledCalls, TimedLayer


def empty(precision: str = "int8", p50_ms: float | None = None, **changes: object) -> LayerProfile:
    latency = None if p50_ms is None else Interval(value=p50_ms, low=0.99 * p50_ms, high=1.01 * p50_ms)
    values = {"model": "student", "runner": "onnxruntime", "provider": "cpu", "batch": 1, **changes}
    return LayerProfile(precision=precision, latency_p50_ms=latency, **values)  # type: ignore[arg-type]


def profile(
    layers: dict[tuple[str, str], list[float]],
    *,
    precision: str = "int8",
    computed_in: str = "int8",
    **more: object,
) -> LayerProfile:
    """A profile of layers (name, operator) -> microseconds of each call; convolutions compute in one type."""
    count = len(next(iter(layers.values())))
    calls = [
        [
            TimedLayer(name, operator, us[index], computed_in if "Conv" in operator else None)
            for (name, operator), us in layers.items()
        ]
        for index in range(count)
    ]
    return summarize_calls(empty(precision, **more), ProfiledCalls(calls, [1.0] * count, "planted"))  # type: ignore[arg-type]


def test_medians_and_shares_are_those_of_numpy() -> None:
    times = {
        ("conv", "Conv"): [100.0, 120.0, 9000.0],
        ("q", "QuantizeLinear"): [40.0, 41.0, 39.0],
        ("dq", "DequantizeLinear"): [60.0, 10.0, 61.0],
        ("cast", "Cast"): [20.0, 20.0, 20.0],
    }
    found = profile(times)
    medians = {name: float(np.median(us)) for (name, _), us in times.items()}
    total = sum(medians.values())
    assert found.sum_ms == pytest.approx(total / 1e3)
    assert {layer.name: layer.p50_us for layer in found.slowest} == medians
    assert [layer.name for layer in found.slowest] == sorted(medians, key=lambda name: -medians[name])
    assert found.quantize_share == pytest.approx((medians["q"] + medians["dq"]) / total)
    assert found.reformat_share == pytest.approx(medians["cast"] / total)
    assert (found.layers, found.calls, found.graph) == (4, 3, "planted")


def test_one_operator_of_several_nodes_is_summed_and_one_name_stays_two_nodes() -> None:
    calls = [[TimedLayer("a", "Conv", us), TimedLayer("a", "Conv", 10 * us)] for us in (1.0, 2.0, 3.0)]
    found = summarize_calls(empty(), ProfiledCalls(calls, [1.0] * 3, ""))
    (row,) = found.operators
    assert (row.layers, row.p50_us, row.share) == (2, 22.0, 1.0)
    assert [layer.p50_us for layer in found.slowest] == [20.0, 2.0]


def test_a_layer_that_a_call_lacks_took_no_time_in_it() -> None:
    rare = [[TimedLayer("a", "Conv", 5.0)], [TimedLayer("a", "Conv", 5.0), TimedLayer("b", "Add", 7.0)]]
    found = summarize_calls(empty(), ProfiledCalls([*rare, rare[0]], [1.0] * 3, ""))
    assert {layer.name: layer.p50_us for layer in found.slowest} == {"a": 5.0, "b": 0.0}


@pytest.mark.parametrize("calls", [[], [[]], [[TimedLayer("a", "Conv", 0.0)]]])
def test_no_time_is_null_with_a_reason(calls: list[list[TimedLayer]]) -> None:
    found = summarize_calls(empty(), ProfiledCalls(calls, [1.0] * len(calls), ""))
    assert (found.sum_ms, found.quantize_share, found.slowest) == (None, None, [])
    assert found.reason


LAYER = st.builds(
    TimedLayer,
    st.text(max_size=300),
    st.sampled_from(["Conv", "QuantizeLinear", "Cast", "", "Add\n"]) | st.text(max_size=5),
    st.floats(0, 1e9),
    st.sampled_from([None, "int8", "fp32"]),
)


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(st.lists(LAYER, max_size=30), min_size=1, max_size=6), st.sampled_from(["onnxruntime", "tensorrt"])
)
def test_shares_add_up_and_lists_are_bounded(calls: list[list[TimedLayer]], runner: str) -> None:
    found = summarize_calls(empty(runner=runner), ProfiledCalls(calls, [1.0] * len(calls), ""))
    assert LayerProfile.model_validate_json(found.model_dump_json()) == found
    if found.sum_ms is None:
        assert found.reason
        return
    assert len(found.slowest) == min(MOST_LAYERS, found.layers)
    assert len(found.operators) <= MOST_OPERATORS
    assert all(len(layer.name) <= 160 and layer.name.isprintable() for layer in found.slowest)
    kinds = {(row.operator, row.kind) for row in found.operators}
    if len(kinds) < MOST_OPERATORS:
        assert math.isclose(sum(row.share for row in found.operators), 1.0)
        assert sum(row.layers for row in found.operators) == found.layers
    assert [row.p50_us for row in found.operators] == sorted((row.p50_us for row in found.operators), reverse=True)
    assert 0 <= (found.quantize_share or 0) + (found.reformat_share or 0) <= 1 + 1e-9


@pytest.mark.parametrize(
    ("runner", "name", "operator", "kind"),
    [
        ("onnxruntime", "x", "QuantizeLinear", "quantize"),
        ("onnxruntime", "x", "DynamicQuantizeLinear", "quantize"),
        ("onnxruntime", "x", "ReorderOutput", "reformat"),
        ("onnxruntime", "x", "MemcpyToHost", "reformat"),
        ("onnxruntime", "x", "QLinearConv", "compute"),
        ("onnxruntime", "Reformatting of x_QuantizeLinear", "Conv", "compute"),
        ("tensorrt", "Reformatting CopyNode for Input Tensor 0 to conv1", "Reformat", "reformat"),
        ("tensorrt", "Reformatting CopyNode for Input Tensor 0 to conv1", "", "reformat"),
        ("tensorrt", "x_QuantizeLinear", "Scale", "quantize"),
        ("tensorrt", "x_QuantizeLinear_1 + x_DequantizeLinear", "Scale", "quantize"),
        ("tensorrt", "w + w_QuantizeLinear + Conv_5 + Relu_6", "CaskConvolution", "compute"),
        ("tensorrt", "PreQuantizeLinearly", "CaskConvolution", "compute"),
        # Of engines that TensorRT-RTX 1.7 built from a model with Q/DQ.
        ("tensorrt", "__myl_MulMinMaxRounCastReplConc_myl0_1", "kgen", "quantize"),
        (
            "tensorrt",
            "__myl_MulMinMaxRounCastCastMulReluMulMinMaxRounCastCastMulMeanMul_myl0_3",
            "kgen",
            "compute",
        ),
        ("tensorrt", "__myl_Move_myl0_1", "kgen", "reformat"),
        ("tensorrt", "node_of_y_myl0_2", "correlation", "compute"),
    ],
)
def test_what_a_layer_does(runner: str, name: str, operator: str, kind: str) -> None:
    assert classify_layer(name, operator, runner) == kind


SLOW = {
    ("c", "Conv"): [50.0],
    ("q", "QuantizeLinear"): [30.0],
    ("d", "DequantizeLinear"): [11.0],
    ("r", "Relu"): [9.0],
}


def test_the_cause_is_one_sentence() -> None:
    assert profile(SLOW, computed_in="fp32").summary == (
        "int8 on onnxruntime:cpu: 41% of the time is QuantizeLinear/DequantizeLinear, "
        "the provider computes in fp32."
    )
    assert profile({("c", "Conv"): [80.0], ("t", "Transpose"): [20.0]}).summary == (
        "int8 on onnxruntime:cpu: 20% of the time is Transpose."
    )
    assert profile({("c", "Conv"): [95.0], ("t", "Transpose"): [5.0]}).summary == (
        "int8 on onnxruntime:cpu: 95% of the time is Conv."
    )
    assert "layers that only quantize" in profile(SLOW, runner="tensorrt", provider="cuda").summary


def test_slower_is_decided_by_the_intervals_and_has_its_cause() -> None:
    plain = {("c", "Conv"): [50.0]}
    fp32 = profile(plain, precision="fp32", computed_in="fp32", p50_ms=3.0)
    fp16 = profile(plain, precision="fp16", computed_in="fp32", p50_ms=2.0)
    int8 = profile(SLOW, computed_in="fp32", p50_ms=4.1)
    found = explain_slower([fp32, fp16, int8])
    assert found[:2] == [fp32, fp16]
    assert found[2].slower_than == "fp16"
    assert found[2].summary == (
        "int8 on onnxruntime:cpu is slower than fp16 (4.1 against 2 ms): 41% of the time is "
        "QuantizeLinear/DequantizeLinear, the provider computes in fp32."
    )
    close = profile(SLOW, p50_ms=2.03)
    for other in (close, profile(SLOW, p50_ms=4.1, provider="cuda"), profile(SLOW, p50_ms=4.1, threads=2)):
        assert explain_slower([fp16, other])[1].slower_than is None
    # A wider precision that could not be profiled was timed all the same; a profile without times says nothing.
    assert explain_slower([empty("fp16", 2.0, reason="no"), int8])[1].slower_than == "fp16"
    unknown = empty("int8", 4.1, reason="no")
    assert explain_slower([fp16, unknown])[1] == unknown


def test_the_sum_is_checked_against_the_latency() -> None:
    found = profile({("c", "Conv"): [900.0]}, p50_ms=0.8)
    assert measure_overhead(found) == pytest.approx(1.0 / 0.8 - 1)
    assert is_plausible(found)
    assert "add up to 0.9 ms, 112% of the 0.8 ms" in describe_overhead(found)
    assert not is_plausible(profile({("c", "Conv"): [900.0]}, p50_ms=0.6))
    assert not is_plausible(profile({("c", "Conv"): [900.0]}, p50_ms=1.5))
    unknown = profile({("c", "Conv"): [900.0]})
    assert (measure_overhead(unknown), describe_overhead(unknown), is_plausible(unknown)) == (None, "", True)
