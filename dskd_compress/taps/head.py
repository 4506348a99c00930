"""From a tap to logits through the model's own head.

Which ways have the right shapes is found without values; that one gives the model's own logits is
proven on the probe's.

Shape suffixes: B images, C channels, H and W grid of a map, P prefix tokens, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from dskd_compress.label_space import ClassMappedModel
from dskd_compress.pretrained import architecture
from dskd_compress.taps.probe import REFUSALS, Probe, eval_mode
from dskd_compress.taps.tap import Tap, TapKind, find_prefix_tap, find_tap
from dskd_export.errors import TapError

# Two ways to the same logits differ by rounding only; a wrong way differs by the size of the logits.
_SAME_LOGITS = 1e-4

VectorHead = Callable[[Tensor], Tensor]


class TapHead:
    """From a tap to logits through the model's own head, without changing the model.

    Attributes:
        linear: the classifier, where tap -> logits is exactly this layer (after mean pooling for a
            map), so that the gradient of the logits has a closed form; otherwise None.
        path: the way in words, for documents.
    """

    def __init__(
        self,
        model: nn.Module,
        tap: Tap,
        from_vector: VectorHead | None,
        linear: nn.Linear | None,
        path: str = "forward_head",
    ) -> None:
        self._model = model
        self._tap = tap
        self._from_vector = from_vector
        self.linear = linear
        self.path = path

    def __deepcopy__(self, memo: dict[int, object]) -> TapHead:
        """A view on a frozen model: copying what holds the view does not copy the model."""
        return self

    def __call__(self, feat: Tensor, prefix_BPC: Tensor | None = None) -> Tensor:
        """BxC or BxCxHxW (and the prefix tokens, where the map has some) -> logits BxK."""
        if self.linear is not None:
            logits_BK: Tensor = self.linear(feat if feat.ndim == 2 else feat.mean(dim=(2, 3)))
            return logits_BK
        if self._from_vector is not None:
            return self._from_vector(feat)
        return self._model.forward_head(self._tap.restore(feat, prefix_BPC))  # type: ignore[no-any-return,operator]


def find_head_paths(model: nn.Module, seen: Probe, tap: Tap) -> list[TapHead]:
    """Find the ways from a tap that give logits of the right shape, simplest first; needs no values.

    Args:
        model: in any mode; left in it.
    """
    with eval_mode(model):
        feat, prefix_BPC = tap.read(model, seen.features)
        return [head for head in _candidates(model, seen, tap) if _fits(head, feat, prefix_BPC, seen.logits_BK)]


def find_head(model: nn.Module, seen: Probe, tap: Tap) -> TapHead:
    """Find the way from a tap to the logits, and prove it on the values of the probe.

    Raises:
        TapError: no part of the model's head leads from this tap to its logits.
    """
    if not seen.real:
        raise ValueError("a head cannot be proven on the meta device")
    paths = find_head_paths(model, seen, tap)
    with eval_mode(model):
        feat, prefix_BPC = tap.read(model, seen.features)
        for head in paths:
            if _is_proven(head, feat, prefix_BPC, seen.logits_BK):
                return head
    name = architecture(model)
    if tap.kind == "map":
        raise TapError(f"The head of {name} does not read its spatial map.", "Use method.tap: vector.")
    raise TapError(
        f"{name} has no classifier that reads its pooled vector alone: it has several heads.",
        "Use method.tap: map, fit one classifier on its vector (teacher.fit: probe), or choose another teacher.",
    )


def find_teacher_tap(model: nn.Module, seen: Probe, kind: TapKind) -> tuple[Tap, TapHead]:
    """Find a tap of a teacher with the head that leads on from it.

    A teacher whose classifiers do not read its vector is read at the tokens that they do read.

    Raises:
        TapError: there is none.
    """
    tap = find_tap(model, seen, kind)
    try:
        return tap, find_head(model, seen, tap)
    except TapError:
        prefix = find_prefix_tap(seen) if kind == "vector" else None
        if prefix is None or not find_head_paths(model, seen, prefix):
            raise
        try:
            return prefix, find_head(model, seen, prefix)
        except TapError:
            pass
        raise


def _candidates(model: nn.Module, seen: Probe, tap: Tap) -> list[TapHead]:
    if tap.layout == "vector":
        return [
            TapHead(model, tap, head, head if isinstance(head, nn.Linear) else None, path)
            for path, head in [*list_vector_heads(model), *_heads_of_parts(model, seen)]
        ]
    whole = TapHead(model, tap, None, None)
    classifier = _classifier(model)
    if tap.kind == "map" and isinstance(classifier, nn.Linear) and classifier.in_features == tap.channels:
        return [TapHead(model, tap, None, classifier, "linear after mean pooling"), whole]
    return [whole]


def _fits(head: TapHead, feat: Tensor, prefix_BPC: Tensor | None, logits_BK: Tensor) -> bool:
    try:
        found_BK = head(feat, prefix_BPC)
    except REFUSALS:
        return False  # this candidate takes another shape: not the way from this tap
    return isinstance(found_BK, Tensor) and found_BK.shape == logits_BK.shape


def _is_proven(head: TapHead, feat: Tensor, prefix_BPC: Tensor | None, logits_BK: Tensor) -> bool:
    # A classifier of zeros (untrained) agrees with everything and does not prove that the pooling is the mean.
    if feat.ndim == 4 and head.linear is not None and not bool(head.linear.weight.any()):
        return False
    found_BK = head(feat, prefix_BPC)
    if not bool((found_BK - logits_BK).abs().max() <= _SAME_LOGITS * logits_BK.abs().max()):  # NaN proves nothing
        return False
    if feat.ndim != 4 or head.linear is not None:
        return True
    # A head that reads the class token alone gives the same logits for any map.
    generator = torch.Generator().manual_seed(0)
    shake = torch.randn(feat.shape, generator=generator).to(feat)
    shaken_BK = head(feat + feat.std() * shake, prefix_BPC)
    return not (bool(logits_BK.any()) and torch.equal(shaken_BK, logits_BK))


def _classifier(model: nn.Module) -> Any:
    return model.get_classifier() if hasattr(model, "get_classifier") else None  # type: ignore[operator]


def list_vector_heads(model: nn.Module) -> list[tuple[str, VectorHead]]:
    """List candidates for vector -> logits with their names, simplest first."""
    if isinstance(model, ClassMappedModel):
        own = list_vector_heads(model.model)
        return [(f"{path}, classes mapped", _compose(head, model.class_map)) for path, head in own]
    classifier = _classifier(model)
    if isinstance(classifier, (tuple, list, nn.ModuleList)):
        heads = list(classifier)
        return [("mean of heads", _mean_of(heads)), ("mean of heads, each of its part", _mean_of_parts(heads))]
    if isinstance(classifier, nn.Conv2d):
        return [("1x1 convolution", lambda vector_BC: classifier(vector_BC[:, :, None, None]).flatten(1))]
    if not isinstance(classifier, nn.Module):
        return []
    last = getattr(classifier, "fc", None)  # a whole ClassifierHead: its last layer reads the pooled vector
    found = [classifier, last] if isinstance(last, nn.Module) else [classifier]
    return [("linear" if isinstance(head, nn.Linear) else "classifier", head) for head in found]


def _heads_of_parts(model: nn.Module, seen: Probe) -> list[tuple[str, VectorHead]]:
    """The model's whole head, where its features are several tensors whose pooled vectors lie side by side.

    Each part is given back as a feature of one place, which pooling leaves as it is. So weights between
    the classifiers of the parts (EfficientViM) are in it, too.
    """
    parts = seen.features
    if not isinstance(parts, (list, tuple)) or not all(
        isinstance(part, Tensor) and part.ndim == 3 for part in parts
    ):
        return []
    found: list[tuple[str, VectorHead]] = []
    for dim in (1, 2):  # BxCxN or BxNxC
        widths = [part.shape[dim] for part in parts]
        if sum(widths) == seen.vector_BC.shape[1]:
            found.append(("forward_head of parts", _whole_head_of(model, widths, place=3 - dim)))
    return found


def _whole_head_of(model: nn.Module, widths: list[int], place: int) -> VectorHead:
    def head(vector_BC: Tensor) -> Tensor:
        parts = [part.unsqueeze(place) for part in torch.split(vector_BC, widths, dim=1)]
        logits_BK: Tensor = model.forward_head(parts)  # type: ignore[operator]
        return logits_BK

    return head


def _compose(first: VectorHead, second: VectorHead) -> VectorHead:
    return lambda vector_BC: second(first(vector_BC))


def _mean_of(heads: list[nn.Module]) -> VectorHead:
    return lambda vector_BC: torch.stack([head(vector_BC) for head in heads]).mean(dim=0)


def _mean_of_parts(heads: list[nn.Module]) -> VectorHead:
    """The vector is the branches' vectors one after the other (CrossViT), each with its own classifier."""
    widths = [int(getattr(head, "in_features", 0)) for head in heads]
    ends = list(accumulate(widths))

    def mean(vector_BC: Tensor) -> Tensor:
        parts = [vector_BC[:, end - width : end] for width, end in zip(widths, ends, strict=True)]
        return torch.stack([head(part) for head, part in zip(heads, parts, strict=True)]).mean(dim=0)

    return mean
