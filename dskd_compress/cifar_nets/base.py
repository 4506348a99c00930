"""What the CIFAR networks share: timm's feature interface around a stack of stages and a mean-pooling head.

Shape suffixes: B images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from timm.models import build_model_with_cfg
from timm.models._features import feature_take_indices
from timm.models._manipulate import checkpoint as run_checkpointed
from torch import Tensor, nn

CIFAR100_MEAN = (0.5071, 0.4867, 0.4408)
CIFAR100_STD = (0.2675, 0.2565, 0.2761)


def pretrained_config(first_conv: str) -> dict[str, Any]:
    """timm's configuration of a network for 32-px images; there are no weights to download.

    The normalisation is that of the CRD protocol (CIFAR-100's own statistics).
    """
    return {
        "url": "",
        "num_classes": 100,
        "input_size": (3, 32, 32),
        "pool_size": None,
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": CIFAR100_MEAN,
        "std": CIFAR100_STD,
        "first_conv": first_conv,
        "classifier": "fc",
    }


class CifarNet(nn.Module):
    """`stem`, `stages`, `norm`, then mean pooling and `fc`, behind timm's interface.

    Args:
        stem: images to the first feature map.
        stages: feature map to feature map.
        norm: behind the last stage; for pre-activation networks, else an identity.
        widths: channels behind each stage.
        reductions: input pixels a place of the map behind each stage stands for, along one side.
        num_classes: 0 leaves the classifier out.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Iterable[nn.Module],
        norm: nn.Module,
        widths: tuple[int, ...],
        reductions: tuple[int, ...],
        num_classes: int,
        drop_rate: float,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.drop_rate = drop_rate
        self.num_features = self.head_hidden_size = widths[-1]
        self.grad_checkpointing = False
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.norm = norm
        self.feature_info = [
            {"num_chs": width, "reduction": reduction, "module": f"stages.{index}"}
            for index, (width, reduction) in enumerate(zip(widths, reductions, strict=True))
        ]
        self.fc: nn.Module = self._classifier(num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _classifier(self, num_classes: int) -> nn.Module:
        return nn.Linear(self.num_features, num_classes) if num_classes > 0 else nn.Identity()

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new last layer for another number of classes."""
        self.num_classes = num_classes
        self.fc = self._classifier(num_classes)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the stages' activations again in the backward pass instead of keeping them."""
        self.grad_checkpointing = enable

    def _through(self, stage: nn.Module, feat_BCHW: Tensor) -> Tensor:
        if self.grad_checkpointing and self.training and torch.is_grad_enabled():
            return run_checkpointed(stage, feat_BCHW)  # type: ignore[no-any-return]
        return stage(feat_BCHW)  # type: ignore[no-any-return]

    def forward_features(self, images_BCHW: Tensor) -> Tensor:
        """Images -> the last feature map, BxCxHxW."""
        feat_BCHW = self.stem(images_BCHW)
        for stage in self.stages:
            feat_BCHW = self._through(stage, feat_BCHW)
        return self.norm(feat_BCHW)  # type: ignore[no-any-return]

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Feature maps behind the stages, as timm's models give them.

        Args:
            x: images BxCxHxW.
            indices: which stages; a number takes so many of the last ones, None all.
            norm: apply the final normalisation to the last stage's map.
            stop_early: leave out the stages behind the last one asked for.
            output_fmt: NCHW only.
            intermediates_only: the maps alone, without the final features.
        """
        if output_fmt != "NCHW":
            raise ValueError("output_fmt must be NCHW")
        wanted, last = feature_take_indices(len(self.stages), indices)
        maps: list[Tensor] = []
        feat_BCHW = self.stem(x)
        for index, stage in enumerate(self.stages):
            if stop_early and index > last:
                break
            feat_BCHW = self._through(stage, feat_BCHW)
            if index in wanted:
                maps.append(self.norm(feat_BCHW) if norm and index == len(self.stages) - 1 else feat_BCHW)
        return maps if intermediates_only else (self.norm(feat_BCHW), maps)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last feature map -> logits BxK, or the pooled vector BxC."""
        pooled_BC = x.mean(dim=(2, 3))
        if self.drop_rate > 0:
            pooled_BC = nn.functional.dropout(pooled_BC, self.drop_rate, self.training)
        return pooled_BC if pre_logits else self.fc(pooled_BC)

    def forward(self, x: Tensor) -> Tensor:
        """Images BxCxHxW -> logits BxK."""
        return self.forward_head(self.forward_features(x))


def build(kind: type[CifarNet], name: str, pretrained: bool, **arguments: Any) -> nn.Module:
    """Create a network by timm's own builder, which knows overlays, `features_only` and checkpoints."""
    model: nn.Module = build_model_with_cfg(kind, name, pretrained, **arguments)
    return model
