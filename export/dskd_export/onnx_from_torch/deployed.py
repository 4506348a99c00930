"""Wrap a classifier for deployment: normalisation and softmax become part of the graph.

Shape suffixes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dskd_export.spec import PROBABILITIES, ModelSpec

STUDENT = "student"  # name of the classifier within `Deployed`


class Deployed(nn.Module):
    """A classifier with the input and the output that a spec promises.

    Takes images in the spec's type and layout, BxCxHxW or BxHxWxC; bytes are scaled to [0, 1] and
    normalised, ((x / 255) - mean) / std, in the order and the roundings of `runtime.preprocess`.
    Gives logits BxK, or their softmax.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.student = model
        self.channels_last = spec.input_layout == "NHWC"
        self.bytes_in = spec.input_dtype == "uint8"
        self.softmax = spec.output_name == PROBABILITIES
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images as the spec says -> logits or probabilities BxK."""
        images_BCHW = images.permute(0, 3, 1, 2) if self.channels_last else images
        if self.bytes_in:
            images_BCHW = (images_BCHW.to(torch.float32) / 255 - self.mean) / self.std
        logits_BK: Tensor = self.student(images_BCHW)
        return logits_BK.softmax(dim=-1) if self.softmax else logits_BK


def wrap_for_deployment(model: nn.Module, spec: ModelSpec) -> nn.Module:
    """Wrap the model in what the spec puts into its graph; return the model itself where that is nothing."""
    plain = (spec.input_dtype, spec.input_layout) == ("float32", "NCHW") and spec.output_name != PROBABILITIES
    return model if plain else Deployed(model, spec).eval()
