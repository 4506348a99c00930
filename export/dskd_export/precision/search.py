"""Find the layers that cost a quantised model its accuracy, and put them back to floating point.

First the error of each: groups of neighbouring layers are quantised alone, everything else in floating
point; a group that costs next to nothing stays whole, any other is halved until single layers
remain. Then the list: layers are put back, the costliest first, until the score is good enough, and
no more of them than that needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# A group is split when it costs more than this share of the whole model's error.
_NEGLIGIBLE = 0.05


@dataclass(frozen=True)
class Score:
    """How far a quantised model is from fp32, on labelled images that are not evaluated later.

    Attributes:
        kl: mean KL(fp32 || quantised) of the classes' probabilities, in nats.
        agreement: share of images with the same first class.
        top1_drop: accuracy lost against fp32, a fraction; negative where it gained.
    """

    kl: float
    agreement: float
    top1_drop: float


@dataclass(frozen=True)
class LayerError:
    """A layer, or a group that was not worth splitting, and what quantising it alone costs.

    Attributes:
        nodes: names of the layers.
        kl: mean KL to fp32 with these quantised and nothing else, in nats.
    """

    nodes: tuple[str, ...]
    kl: float


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        kept: layers that have to stay in floating point, the costliest first.
        layers: error of each layer or group, the costliest first.
        before: score with everything quantised.
        after: score with `kept` in floating point.
        good: whether `after` is good enough.
        evaluations: quantised models that were run.
        seconds: that it took.
    """

    kept: tuple[str, ...]
    layers: tuple[LayerError, ...]
    before: Score
    after: Score
    good: bool
    evaluations: int
    seconds: float


def search_layers(
    nodes: Sequence[str],
    evaluate: Callable[[frozenset[str]], Score],
    good: Callable[[Score], bool],
    *,
    max_share: float = 0.5,
) -> SearchResult:
    """Find the shortest list of layers that has to stay in floating point.

    Args:
        nodes: the quantised layers, in the order of the graph.
        evaluate: score of the model with the given layers in floating point.
        good: whether a score is good enough.
        max_share: largest share of the layers that may be put back; above it the precision has no use.

    Raises:
        ValueError: there are no layers.
    """
    if not nodes:
        raise ValueError("there are no quantised layers to search")
    began = time.perf_counter()
    known: dict[frozenset[str], Score] = {}

    def score(kept: frozenset[str]) -> Score:
        if kept not in known:
            known[kept] = evaluate(kept)
        return known[kept]

    before = score(frozenset())
    if good(before):
        return SearchResult((), (), before, before, True, len(known), time.perf_counter() - began)
    layers = _errors(tuple(nodes), before.kl, lambda group: score(frozenset(nodes) - frozenset(group)).kl)
    order = [node for layer in layers for node in layer.nodes]
    most = int(max_share * len(nodes))
    kept = _shortest(order[:most], lambda some: good(score(frozenset(some))))
    after = score(frozenset(kept))
    return SearchResult(kept, layers, before, after, good(after), len(known), time.perf_counter() - began)


def _errors(
    nodes: tuple[str, ...], whole: float, error: Callable[[tuple[str, ...]], float]
) -> tuple[LayerError, ...]:
    """Errors of single layers and of groups that cost next to nothing, the costliest first."""
    found: list[LayerError] = []
    groups = [LayerError(nodes, whole)]
    while groups:
        group = groups.pop()
        if len(group.nodes) == 1 or group.kl <= _NEGLIGIBLE * whole:
            found.append(group)
            continue
        middle = len(group.nodes) // 2
        halves = (group.nodes[:middle], group.nodes[middle:])
        groups.extend(LayerError(half, error(half)) for half in halves)
    return tuple(sorted(found, key=lambda layer: (-layer.kl / len(layer.nodes), layer.nodes)))


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
