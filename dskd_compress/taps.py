"""Where features are read, and the way from there to logits through the model's own head.

Two taps, from timm's own interface only (`forward_features`, `forward_head`, `get_classifier`,
`forward_intermediates` for the token grid), so that they hold for any timm classifier:

    vector  forward_head(forward_features(x), pre_logits=True)      BxC
    map     forward_features(x), as NCHW whatever the model's layout BxCxHxW

Shape suffixes: B images, C channels, H and W grid of a map, N tokens, P prefix tokens, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dskd_compress.models import architecture
from dskd_export.documents import TapFacts
from dskd_export.errors import TapError

TapKind = Literal["vector", "map"]
# Two ways to the same logits differ by rounding only; a wrong way differs by the size of the logits.
_SAME_LOGITS = 1e-4
_MAX_MAP_CHANNELS = 1024


@dataclass(frozen=True)
class Tap:
    """A place in a model where a feature is read."""

    kind: TapKind
    channels: int
    grid: tuple[int, int] | None
    layout: Literal["vector", "NCHW", "NHWC", "tokens"]
    prefix_tokens: int = 0

    def read(self, model: nn.Module, features: Any) -> tuple[Tensor, Tensor | None]:
        """Output of `forward_features` -> the tap, and the prefix tokens that a map leaves out.

        Returns:
            vector: BxC and None. map: BxCxHxW and BxPxC (None where the model has no prefix tokens).
        """
        if self.kind == "vector":
            return model.forward_head(features, pre_logits=True), None  # type: ignore[operator]
        if self.layout == "NCHW":
            return features, None
        if self.layout == "NHWC":
            return features.permute(0, 3, 1, 2), None
        assert self.grid is not None
        prefix_BPC, tokens_BNC = features.split((self.prefix_tokens, self.grid[0] * self.grid[1]), dim=1)
        map_BCHW = tokens_BNC.transpose(1, 2).unflatten(2, self.grid)
        return map_BCHW, prefix_BPC if self.prefix_tokens else None

    def restore(self, map_BCHW: Tensor, prefix_BPC: Tensor | None = None) -> Tensor:
        """The inverse of `read` for a map: BxCxHxW -> what `forward_head` takes."""
        if self.layout == "NCHW":
            return map_BCHW
        if self.layout == "NHWC":
            return map_BCHW.permute(0, 2, 3, 1)
        tokens_BNC = map_BCHW.flatten(2).transpose(1, 2)
        return tokens_BNC if prefix_BPC is None else torch.cat((prefix_BPC, tokens_BNC), dim=1)

    def facts(self) -> TapFacts:
        """For the documents."""
        return TapFacts(kind=self.kind, channels=self.channels, grid=self.grid, layout=self.layout)


class TapHead:
    """From a tap to logits through the model's own head, without changing the model.

    Attributes:
        linear: the classifier, where tap -> logits is exactly this layer (after mean pooling for a
            map), so that the gradient of the logits has a closed form; otherwise None.
    """

    def __init__(
        self,
        model: nn.Module,
        tap: Tap,
        from_vector: Callable[[Tensor], Tensor] | None,
        linear: nn.Linear | None,
    ) -> None:
        self._model = model
        self._tap = tap
        self._from_vector = from_vector
        self.linear = linear

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


@dataclass(frozen=True)
class Probe:
    """What one forward pass of random images showed of a model."""

    features: Any
    vector_BC: Tensor
    logits_BK: Tensor
    grid: tuple[int, int] | None


def probe(model: nn.Module, input_size: tuple[int, int, int]) -> Probe:
    """Run two random images through a model in eval mode.

    Args:
        model: a timm classifier; left in the mode that it was in.
        input_size: channels, height, width.

    Raises:
        TapError: it is not a classifier with timm's feature interface, or does not take this size.
    """
    name = architecture(model)
    for method in ("forward_features", "forward_head"):
        if not hasattr(model, method):
            raise TapError(f"{name} has no {method}: it is not a timm image classifier.", "Choose another model.")
    parameter = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    images_BCHW = torch.randn(2, *input_size, generator=generator).to(parameter)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            features = model.forward_features(images_BCHW)  # type: ignore[operator]
            vector_BC = model.forward_head(features, pre_logits=True)  # type: ignore[operator]
            logits_BK = model.forward_head(features)  # type: ignore[operator]
            grid = _grid(model, images_BCHW)
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TapError(
            f"{name} does not run on {input_size[1]}x{input_size[2]} images: {reason}",
            "Change data.input_size, or pass the model's size in kwargs.",
        ) from error
    finally:
        model.train(was_training)
    if not isinstance(logits_BK, Tensor) or logits_BK.ndim != 2 or getattr(model, "num_classes", 0) <= 0:
        raise TapError(f"{name} has no classifier.", "Set kwargs.num_classes, or choose another model.")
    if not isinstance(vector_BC, Tensor) or vector_BC.ndim != 2:
        raise TapError(f"{name} gives no pooled vector before its classifier.", "Choose another model.")
    return Probe(features, vector_BC, logits_BK, grid)


def _grid(model: nn.Module, images_BCHW: Tensor) -> tuple[int, int] | None:
    """Height and width of the last feature map, asked of timm; None where it cannot say."""
    if not hasattr(model, "forward_intermediates"):
        return None
    try:
        maps = model.forward_intermediates(images_BCHW, indices=1, intermediates_only=True)  # type: ignore[operator]
    except (RuntimeError, AssertionError, TypeError, ValueError, NotImplementedError):
        return None  # some models refuse it for some settings; the map tap is then not offered
    last = maps[-1]
    if not isinstance(last, Tensor) or last.ndim != 4:
        return None
    return int(last.shape[2]), int(last.shape[3])


def find_tap(model: nn.Module, seen: Probe, kind: TapKind) -> Tap:
    """Describe one tap of a model.

    Raises:
        TapError: the model has no such tap; the reason is in the message.
    """
    if kind == "vector":
        return Tap("vector", seen.vector_BC.shape[1], None, "vector")
    name, features = architecture(model), seen.features
    if isinstance(features, Tensor) and features.ndim == 4:
        if getattr(model, "output_fmt", "NCHW") == "NHWC":
            return Tap("map", features.shape[3], (features.shape[1], features.shape[2]), "NHWC")
        return Tap("map", features.shape[1], (features.shape[2], features.shape[3]), "NCHW")
    if isinstance(features, Tensor) and features.ndim == 3 and seen.grid is not None:
        prefix = features.shape[1] - seen.grid[0] * seen.grid[1]
        if prefix >= 0:
            return Tap("map", features.shape[2], seen.grid, "tokens", prefix)
    raise TapError(f"{name} has no spatial map before its head.", "Use method.tap: vector.")


def find_head(model: nn.Module, seen: Probe, tap: Tap) -> TapHead:
    """Find the way from a tap to the logits, and prove it on the probe's features.

    Raises:
        TapError: no part of the model's head leads from this tap to its logits.
    """
    name = architecture(model)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            if tap.kind == "vector":
                for from_vector in _vector_heads(model):
                    if _same(from_vector, seen.vector_BC, seen.logits_BK):
                        linear = from_vector if isinstance(from_vector, nn.Linear) else None
                        return TapHead(model, tap, from_vector, linear)
                raise TapError(
                    f"{name} has no classifier that reads its pooled vector alone: it has several heads.",
                    "Use it as a student, or choose another teacher.",
                )
            map_BCHW, prefix_BPC = tap.read(model, seen.features)
            classifier = _classifier(model)
            if isinstance(classifier, nn.Linear):
                pooled = TapHead(model, tap, None, classifier)
                # A classifier of zeros (untrained) agrees with everything and proves nothing.
                proves = bool(classifier.weight.any()) and classifier.in_features == tap.channels
                if proves and _same(pooled, map_BCHW, seen.logits_BK):
                    return pooled
            head = TapHead(model, tap, None, None)
            # A head that reads the class token alone gives the same logits for any map.
            shaken_BK = head(map_BCHW + map_BCHW.std() * torch.randn_like(map_BCHW), prefix_BPC)
            if seen.logits_BK.any() and torch.equal(shaken_BK, seen.logits_BK):
                raise TapError(f"The head of {name} does not read its spatial map.", "Use method.tap: vector.")
            return head
    finally:
        model.train(was_training)


def _classifier(model: nn.Module) -> Any:
    return model.get_classifier() if hasattr(model, "get_classifier") else None  # type: ignore[operator]


def _vector_heads(model: nn.Module) -> list[Callable[[Tensor], Tensor]]:
    """Candidates for vector -> logits, simplest first."""
    classifier = _classifier(model)
    if isinstance(classifier, (tuple, list, nn.ModuleList)):
        heads = list(classifier)
        return [lambda vector_BC: torch.stack([head(vector_BC) for head in heads]).mean(dim=0)]
    if isinstance(classifier, nn.Conv2d):
        return [lambda vector_BC: classifier(vector_BC[:, :, None, None]).flatten(1)]
    if not isinstance(classifier, nn.Module):
        return []
    last = getattr(classifier, "fc", None)  # a whole ClassifierHead: its last layer reads the pooled vector
    return [classifier, last] if isinstance(last, nn.Module) else [classifier]


def _same(head: Callable[[Tensor], Tensor], feat: Tensor, logits_BK: Tensor) -> bool:
    try:
        found_BK = head(feat)
    except (RuntimeError, TypeError, AssertionError, ValueError, IndexError):
        return False  # this candidate takes another shape: not the way from this tap
    if not isinstance(found_BK, Tensor) or found_BK.shape != logits_BK.shape:
        return False
    return bool((found_BK - logits_BK).abs().max() <= _SAME_LOGITS * logits_BK.abs().max())


def choose_tap(
    requested: Literal["auto", "vector", "map"],
    teacher: nn.Module,
    teacher_seen: Probe,
    student: nn.Module,
    student_seen: Probe,
) -> TapKind:
    """Settle `auto` where features are compared: a map where both models have one of several places."""
    if requested != "auto":
        return requested
    try:
        taps = find_tap(teacher, teacher_seen, "map"), find_tap(student, student_seen, "map")
    except TapError:
        return "vector"
    return "map" if all(tap.grid is not None and tap.grid != (1, 1) for tap in taps) else "vector"


def choose_guided_tap(
    requested: Literal["auto", "vector", "map"],
    teacher: nn.Module,
    teacher_seen: Probe,
    student: nn.Module,
    student_seen: Probe,
) -> TapKind:
    """Settle `auto` where the teacher's head guides.

    A map where both are CNNs with a real grid, and the teacher's head pools by the mean.

    A teacher of more than 1024 channels gets the vector tap: denoising its maps costs more than the student.
    """
    if requested != "auto":
        return requested
    try:
        taps = find_tap(teacher, teacher_seen, "map"), find_tap(student, student_seen, "map")
        pools = find_head(teacher, teacher_seen, taps[0]).linear is not None
    except TapError:
        return "vector"
    cnn = all(tap.layout == "NCHW" and tap.grid is not None and min(tap.grid) > 1 for tap in taps)
    return "map" if pools and cnn and taps[0].channels <= _MAX_MAP_CHANNELS else "vector"
