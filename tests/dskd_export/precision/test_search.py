from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dskd_export.documents.export import ScoreFacts
from dskd_export.precision.search import search_layers


def _additive(costs: dict[str, float]):
    """A model whose error is the sum of its quantised layers' errors."""
    seen: list[frozenset[str]] = []

    def evaluate(kept: frozenset[str]) -> ScoreFacts:
        seen.append(kept)
        return ScoreFacts(
            kl=sum(cost for node, cost in costs.items() if node not in kept), agreement=1.0, top1_drop=0.0
        )

    return evaluate, seen


def test_a_good_model_is_not_searched():
    evaluate, seen = _additive({"a": 0.001, "b": 0.0})
    kept, result = search_layers(["a", "b"], evaluate, lambda score: score.kl < 0.01)
    assert (kept, result.layers, result.good, result.evaluations) == ((), [], True, 1)
    assert len(seen) == 1


def test_one_bad_layer_of_many_is_found_in_few_evaluations():
    nodes = [f"conv{index}" for index in range(64)]
    evaluate, _ = _additive(dict.fromkeys(nodes, 1e-5) | {"conv41": 1.0})
    kept, result = search_layers(nodes, evaluate, lambda score: score.kl < 0.01)
    assert kept == ("conv41",)
    assert result.good
    assert result.layers[0].nodes == ["conv41"]
    assert result.evaluations <= 2 * 6 + 3  # two halves a level, the whole, the list
    assert sorted(node for layer in result.layers for node in layer.nodes) == sorted(nodes)


def test_too_many_layers_are_not_put_back():
    nodes = list("abcdefgh")
    evaluate, _ = _additive(dict.fromkeys(nodes, 1.0))
    kept, result = search_layers(nodes, evaluate, lambda score: score.kl < 0.5, max_share=0.5)
    assert len(kept) == 4
    assert not result.good


def test_no_layers():
    with pytest.raises(ValueError, match="no quantised layers"):
        search_layers([], lambda kept: ScoreFacts(kl=0, agreement=1, top1_drop=0), lambda score: True)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=24), st.floats(0, 4))
def test_the_list_is_the_shortest_that_is_good(costs, limit):
    table = {f"n{index:02}": cost for index, cost in enumerate(costs)}
    evaluate, _ = _additive(table)
    kept, result = search_layers(list(table), evaluate, lambda score: score.kl <= limit, max_share=1.0)
    assert result.good  # with everything put back the error is 0
    assert result.after.kl <= limit
    if kept:
        last = frozenset(kept[:-1])
        assert evaluate(last).kl > limit
    assert len(set(kept)) == len(kept)
