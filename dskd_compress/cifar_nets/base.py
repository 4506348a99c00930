"""Base of the CIFAR networks: timm's feature interface around a stack of stages and a mean-pooling head.

Shape suffixes: B images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from timm.models import build_model_with_cfg
from timm.models._features import feature_take_indices
from timm.models._manipulate import checkpoint as run_checkpointed
from torch import Tensor, nn

CIFAR100_MEAN = (0.5071, 0.4867, 0.4408)
CIFAR100_STD = (0.2675, 0.2565, 0.2761)


def make_pretrained_config(first_conv: str) -> dict[str, Any]:
    """Make timm's configuration of a network for 32-px images, without weights to download.

    The normalisation is that of the CRD protocol (statistics of CIFAR-100).
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
        norm: after the last stage of pre-activation networks; else an identity.
        widths: channels after each stage.
        reductions: stride of the map after each stage, in input pixels.
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
        self.fc: nn.Module = self._make_classifier(num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _make_classifier(self, num_classes: int) -> nn.Module:
        return nn.Linear(self.num_features, num_classes) if num_classes > 0 else nn.Identity()

    def get_classifier(self) -> nn.Module:
        """Get the last layer."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer for another number of classes."""
        self.num_classes = num_classes
        self.fc = self._make_classifier(num_classes)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the activations of the stages in the backward pass."""
        self.grad_checkpointing = enable

    def _run_stage(self, stage: nn.Module, feat_BCHW: Tensor) -> Tensor:
        if self.grad_checkpointing and self.training and torch.is_grad_enabled():
            return run_checkpointed(stage, feat_BCHW)  # type: ignore[no-any-return]
        return stage(feat_BCHW)  # type: ignore[no-any-return]

    def forward_features(self, images_BCHW: Tensor) -> Tensor:
        """Compute the last feature map, BxCxHxW."""
        feat_BCHW = self.stem(images_BCHW)
        for stage in self.stages:
            feat_BCHW = self._run_stage(stage, feat_BCHW)
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
        """Compute the feature maps after the stages, as timm's models do.

        Args:
            x: images BxCxHxW.
            indices: stages; a number takes as many of the last ones, None all.
            output_fmt: NCHW only.
        """
        if output_fmt != "NCHW":
            raise ValueError("output_fmt must be NCHW")
        wanted, last = feature_take_indices(len(self.stages), indices)
        maps: list[Tensor] = []
        feat_BCHW = self.stem(x)
        for index, stage in enumerate(self.stages):
            if stop_early and index > last:
                break
            feat_BCHW = self._run_stage(stage, feat_BCHW)
            if index in wanted:
                maps.append(self.norm(feat_BCHW) if norm and index == len(self.stages) - 1 else feat_BCHW)
        return maps if intermediates_only else (self.norm(feat_BCHW), maps)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Compute logits BxK, or the pooled vector BxC, from the last feature map."""
        pooled_BC = x.mean(dim=(2, 3))
        if self.drop_rate > 0:
            pooled_BC = nn.functional.dropout(pooled_BC, self.drop_rate, self.training)
        return pooled_BC if pre_logits else self.fc(pooled_BC)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits BxK from images BxCxHxW."""
        return self.forward_head(self.forward_features(x))


def make_entry(kind: type[CifarNet], name: str, **arguments: Any) -> Callable[..., nn.Module]:
    """Make the function that timm registers under a name.

    timm's builder creates the network: it supports overlays, `features_only` and checkpoints.
    """

    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        model: nn.Module = build_model_with_cfg(kind, name, pretrained, **arguments, **kwargs)
        return model

    create.__name__ = create.__qualname__ = name
    create.__module__ = kind.__module__  # where timm finds `default_cfgs`
    return create
