"""One forward pass of a model, from which its taps are read off.

Shape suffixes: B images, C channels, H and W grid, K classes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dskd_compress.pretrained import architecture
from dskd_export.errors import TapError

# What the models of timm raise for images or arguments that they do not take.
REFUSALS = (RuntimeError, AssertionError, TypeError, ValueError, IndexError, NotImplementedError, AttributeError)


@dataclass(frozen=True)
class Probe:
    """What one forward pass of random images showed of a model; on the meta device, shapes only."""

    features: Any
    vector_BC: Tensor
    logits_BK: Tensor
    grid: tuple[int, int] | None

    @property
    def real(self) -> bool:
        """Whether there are values in it."""
        return self.logits_BK.device.type != "meta"


def probe(model: nn.Module, input_size: tuple[int, int, int]) -> Probe:
    """Run two random images through a model in eval mode.

    Args:
        model: a timm classifier, on any device, also meta; left in the mode that it was in.
        input_size: channels, height, width.

    Raises:
        TapError: it is not a classifier with timm's feature interface, or does not take this size.
    """
    with eval_mode(model):
        images_BCHW = _random_images(model, input_size)
        features = _features(model, images_BCHW)
        vector_BC = _vector(model, features)
        logits_BK = _logits(model, features)
        grid = _grid(model, images_BCHW) if isinstance(features, Tensor) and features.ndim == 3 else None
    return Probe(features, vector_BC, logits_BK, grid)


def measure_pooled_width(model: nn.Module, input_size: tuple[int, int, int]) -> int:
    """Measure the channels of the pooled vector; the model need not have a classifier.

    Raises:
        TapError: it gives no vector, or does not take this size.
    """
    with eval_mode(model):
        return _vector(model, _features(model, _random_images(model, input_size))).shape[1]


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode, without a graph, and back."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _random_images(model: nn.Module, input_size: tuple[int, int, int]) -> Tensor:
    for method in ("forward_features", "forward_head"):
        if not hasattr(model, method):
            raise TapError(
                f"{architecture(model)} has no {method}: it is not a timm image classifier.",
                "Choose another model.",
            )
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, *input_size, generator=generator).to(next(model.parameters()))


def _features(model: nn.Module, images_BCHW: Tensor) -> Any:
    height, width = images_BCHW.shape[2:]
    return _ask(
        lambda: model.forward_features(images_BCHW),  # type: ignore[operator]
        f"{architecture(model)} does not run on {height}x{width} images with {images_BCHW.shape[1]} channels",
        "Change data.input_size, or pass the model's size in kwargs.",
    )


def _vector(model: nn.Module, features: Any) -> Tensor:
    name = architecture(model)
    vector_BC = _ask(
        lambda: model.forward_head(features, pre_logits=True),  # type: ignore[operator]
        f"{name} gives no pooled vector before its classifier",
        "It is an encoder without a classifier's head; choose another model.",
    )
    if not isinstance(vector_BC, Tensor) or vector_BC.ndim != 2:
        shape = f", but {'x'.join(map(str, vector_BC.shape))}" if isinstance(vector_BC, Tensor) else ""
        raise TapError(
            f"{name} gives no pooled vector before its classifier{shape}.",
            "It is an encoder that pools nothing; set kwargs.global_pool, or choose another model.",
        )
    return vector_BC


def _logits(model: nn.Module, features: Any) -> Tensor:
    name = architecture(model)
    hint = "Set kwargs.num_classes, fit a classifier of a teacher (teacher.fit: probe), or choose another model."
    if int(getattr(model, "num_classes", 0) or 0) <= 0:
        raise TapError(f"{name} has no classifier.", hint)
    logits_BK = _ask(lambda: model.forward_head(features), f"{name} has no classifier", hint)  # type: ignore[operator]
    if not isinstance(logits_BK, Tensor) or logits_BK.ndim != 2:
        raise TapError(f"{name} has no classifier.", hint)
    return logits_BK


def _ask(step: Callable[[], Any], fault: str, hint: str) -> Any:
    try:
        return step()
    except REFUSALS as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TapError(f"{fault}: {reason}", hint) from error


def _grid(model: nn.Module, images_BCHW: Tensor) -> tuple[int, int] | None:
    """Height and width of the last feature map, asked of timm; None where it cannot say."""
    if not hasattr(model, "forward_intermediates"):
        return None
    try:
        maps = model.forward_intermediates(images_BCHW, indices=1, intermediates_only=True)  # type: ignore[operator]
    except REFUSALS:
        return None  # some models refuse it for some settings; the map tap is then not offered
    last = maps[-1]
    if not isinstance(last, Tensor) or last.ndim != 4:
        return None
    return int(last.shape[2]), int(last.shape[3])
