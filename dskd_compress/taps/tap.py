"""A place in a model where a feature is read.

Shape suffixes: B images, C channels, H and W grid of a map, N tokens, P prefix tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dskd_compress.pretrained import architecture
from dskd_compress.taps.probe import Probe
from dskd_export.documents.training import TapFacts
from dskd_export.errors import TapError

TapKind = Literal["vector", "map"]


@dataclass(frozen=True)
class Tap:
    """A place in a model where a feature is read.

    Attributes:
        layout: of the model's features; `prefix` is a vector of the tokens before the grid.
    """

    kind: TapKind
    channels: int  # C
    grid: tuple[int, int] | None  # height and width of a map
    layout: Literal["vector", "prefix", "NCHW", "NHWC", "tokens"]
    prefix_tokens: int = 0  # P, the tokens before the grid

    def read(self, model: nn.Module, features: Any) -> tuple[Tensor, Tensor | None]:
        """Output of `forward_features` -> the tap, and the prefix tokens that a map leaves out.

        Returns:
            vector: BxC and None. map: BxCxHxW and BxPxC (None where the model has no prefix tokens).
        """
        if self.layout == "vector":
            return model.forward_head(features, pre_logits=True), None  # type: ignore[operator]
        if self.layout == "prefix":
            return features[:, : self.prefix_tokens].flatten(1), None
        if self.layout == "NCHW":
            return features, None
        if self.layout == "NHWC":
            return features.permute(0, 3, 1, 2), None
        assert self.grid is not None
        prefix_BPC, tokens_BNC = features.split((self.prefix_tokens, self.grid[0] * self.grid[1]), dim=1)
        map_BCHW = tokens_BNC.transpose(1, 2).unflatten(2, self.grid)
        return map_BCHW, prefix_BPC if self.prefix_tokens else None

    def restore(self, feat: Tensor, prefix_BPC: Tensor | None = None) -> Tensor:
        """The inverse of `read`: BxCxHxW, or the BxPC of prefix tokens -> what `forward_head` takes.

        A head that reads prefix tokens alone takes them without the others.
        """
        if self.layout == "prefix":
            return feat.reshape(feat.shape[0], self.prefix_tokens, -1)
        if self.layout == "NCHW":
            return feat
        if self.layout == "NHWC":
            return feat.permute(0, 2, 3, 1)
        tokens_BNC = feat.flatten(2).transpose(1, 2)
        return tokens_BNC if prefix_BPC is None else torch.cat((prefix_BPC, tokens_BNC), dim=1)

    def facts(self) -> TapFacts:
        """For the documents."""
        return TapFacts(kind=self.kind, channels=self.channels, grid=self.grid, layout=self.layout)


def find_tap(model: nn.Module, seen: Probe, kind: TapKind) -> Tap:
    """Describe one tap of a model, from the shapes of its features alone.

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


def find_prefix_tap(seen: Probe) -> Tap | None:
    """The tokens before the grid as one vector; None where a model has none."""
    features = seen.features
    if not isinstance(features, Tensor) or features.ndim != 3 or seen.grid is None:
        return None
    prefix = features.shape[1] - seen.grid[0] * seen.grid[1]
    return Tap("vector", prefix * features.shape[2], None, "prefix", prefix) if prefix > 0 else None
