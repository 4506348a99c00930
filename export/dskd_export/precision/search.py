"""Find the layers that cost a quantised model its accuracy, and put them back to floating point.

First the error of each: groups of neighbouring layers are quantised alone, everything else in floating
point; a group that costs next to nothing stays whole, any other is halved until single layers
remain. Then the list: layers are put back, the costliest first, until the score is good enough, and
no more of them than that needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from dskd_export.documents.export import LayerSensitivity, ScoreFacts, SearchFacts

# A group is split when it costs more than this share of the whole model's error.
_NEGLIGIBLE = 0.05


def search_layers(
    nodes: Sequence[str],
    evaluate: Callable[[frozenset[str]], ScoreFacts],
    good: Callable[[ScoreFacts], bool],
    *,
    images: int = 0,
    max_share: float = 0.5,
) -> tuple[tuple[str, ...], SearchFacts]:
    """Find the shortest list of layers that has to stay in floating point.

    Args:
        nodes: the quantised layers, in the order of the graph.
        evaluate: score of the model with the given layers in floating point.
        good: whether a score is good enough.
        images: that `evaluate` scores on, for the record.
        max_share: largest share of the layers that may be put back; above it the precision has no use.

    Returns:
        The layers that have to stay in floating point, the costliest first; and what the search found.

    Raises:
        ValueError: there are no layers.
    """
    if not nodes:
        raise ValueError("there are no quantised layers to search")
    began = time.perf_counter()
    known: dict[frozenset[str], ScoreFacts] = {}

    def score(kept: frozenset[str]) -> ScoreFacts:
        if kept not in known:
            known[kept] = evaluate(kept)
        return known[kept]

    before = after = score(frozenset())
    layers: list[tuple[tuple[str, ...], float]] = []
    kept: tuple[str, ...] = ()
    if not good(before):
        layers = _errors(tuple(nodes), before.kl, lambda group: score(frozenset(nodes) - frozenset(group)).kl)
        order = [node for group, _ in layers for node in group]
        kept = _shortest(order[: int(max_share * len(nodes))], lambda some: good(score(frozenset(some))))
        after = score(frozenset(kept))
    return kept, SearchFacts(
        images=images,
        before=before,
        after=after,
        good=good(after),
        layers=[
            LayerSensitivity(nodes=list(group), kl=kl, kept=set(kept).issuperset(group)) for group, kl in layers
        ],
        evaluations=len(known),
        seconds=time.perf_counter() - began,
    )


def _errors(
    nodes: tuple[str, ...], whole: float, error: Callable[[tuple[str, ...]], float]
) -> list[tuple[tuple[str, ...], float]]:
    """Errors of single layers and of groups that cost next to nothing, the costliest first."""
    found = []
    groups = [(nodes, whole)]
    while groups:
        group, kl = groups.pop()
        if len(group) == 1 or kl <= _NEGLIGIBLE * whole:
            found.append((group, kl))
            continue
        middle = len(group) // 2
        groups.extend((half, error(half)) for half in (group[:middle], group[middle:]))
    return sorted(found, key=lambda layer: (-layer[1] / len(layer[0]), layer[0]))


def _shortest(order: Sequence[str], good: Callable[[Sequence[str]], bool]) -> tuple[str, ...]:
    """The shortest prefix that is good, by doubling and halving; all of them where none is.

    A longer prefix is taken to be no worse than a shorter one, which holds but for noise.
    """
    low, high = 0, 1  # the prefix `low` is not good
    while high < len(order) and not good(order[:high]):
        low, high = high, 2 * high
    high = min(high, len(order))
    if high == len(order) and not good(order):
        return tuple(order)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if good(order[:middle]) else (middle, high)
    return tuple(order[:high])
