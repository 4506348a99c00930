from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dskd_export.precision.quantize import quantize, quantized_nodes
from dskd_export.precision.scoring import logits_of_model, score_of, scorer
from dskd_export.precision.search import Score, search_layers


def _additive(costs: dict[str, float]):
    """A model whose error is the sum of its quantised layers' errors."""
    seen: list[frozenset[str]] = []

    def evaluate(kept: frozenset[str]) -> Score:
        seen.append(kept)
        return Score(sum(cost for node, cost in costs.items() if node not in kept), 1.0, 0.0)

    return evaluate, seen


def test_a_good_model_is_not_searched():
    evaluate, seen = _additive({"a": 0.001, "b": 0.0})
    result = search_layers(["a", "b"], evaluate, lambda score: score.kl < 0.01)
    assert (result.kept, result.layers, result.good, result.evaluations) == ((), (), True, 1)
    assert len(seen) == 1


def test_the_table_is_there_on_request():
    evaluate, _ = _additive({"a": 0.001, "b": 0.0})
    result = search_layers(["a", "b"], evaluate, lambda score: score.kl < 0.01, always=True)
    assert result.kept == ()
    assert [layer.nodes for layer in result.layers] == [("a",), ("b",)]


def test_one_bad_layer_of_many_is_found_in_few_evaluations():
    nodes = [f"conv{index}" for index in range(64)]
    evaluate, _ = _additive(dict.fromkeys(nodes, 1e-5) | {"conv41": 1.0})
    result = search_layers(nodes, evaluate, lambda score: score.kl < 0.01)
    assert result.kept == ("conv41",)
    assert result.good
    assert result.layers[0].nodes == ("conv41",)
    assert result.evaluations <= 2 * 6 + 3  # two halves a level, the whole, the list
    assert sorted(node for layer in result.layers for node in layer.nodes) == sorted(nodes)


def test_too_many_layers_are_not_put_back():
    nodes = list("abcdefgh")
    evaluate, _ = _additive(dict.fromkeys(nodes, 1.0))
    result = search_layers(nodes, evaluate, lambda score: score.kl < 0.5, max_share=0.5)
    assert len(result.kept) == 4
    assert not result.good


def test_no_layers():
    with pytest.raises(ValueError, match="no quantised layers"):
        search_layers([], lambda kept: Score(0, 1, 0), lambda score: True)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=24), st.floats(0, 4))
def test_the_list_is_the_shortest_that_is_good(costs, limit):
    table = {f"n{index:02}": cost for index, cost in enumerate(costs)}
    evaluate, _ = _additive(table)
    result = search_layers(list(table), evaluate, lambda score: score.kl <= limit, max_share=1.0)
    assert result.good  # with everything put back the error is 0
    assert result.after.kl <= limit
    if result.kept:
        last = frozenset(result.kept[:-1])
        assert evaluate(last).kl > limit
    assert len(set(result.kept)) == len(result.kept)


def test_a_planted_outlier_is_found_in_a_real_model(make_cnn, calibration):
    model = make_cnn(outlier=300.0)
    quantized, _ = quantize(model, "int8", calibration, producer="onnxruntime")
    result = search_layers(
        quantized_nodes(quantized), scorer(model, quantized, calibration), lambda score: score.kl < 0.02
    )
    assert result.kept == ("conv2",)  # the layer that reads the channel with the outlier
    assert result.before.kl > 5 * result.after.kl
    assert result.good


def test_scores_are_those_of_an_independent_calculation():
    from scipy.special import rel_entr, softmax

    rng = np.random.default_rng(0)
    reference, candidate = rng.normal(size=(50, 7)), rng.normal(size=(50, 7))
    labels = rng.integers(0, 7, 50)
    score = score_of(reference, candidate, labels)
    kl = rel_entr(softmax(reference, axis=1), softmax(candidate, axis=1)).sum(axis=1).mean()
    assert np.isclose(score.kl, kl)
    assert score.agreement == np.mean(reference.argmax(1) == candidate.argmax(1))
    assert np.isclose(
        score.top1_drop, np.mean(reference.argmax(1) == labels) - np.mean(candidate.argmax(1) == labels)
    )


def test_nan_is_infinitely_far_and_wrong(cnn, calibration):
    reference = logits_of_model(cnn, calibration.input_N)
    broken = reference.copy()
    broken[0, 3] = np.nan
    score = score_of(reference, broken, calibration.labels_N)
    assert score.kl == np.inf
    assert np.isclose(score.top1_drop, 1 / 64)
