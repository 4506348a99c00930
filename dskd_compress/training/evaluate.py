"""Accuracy of a torch model on a labelled loader."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dskd_compress.taps import eval_mode
from dskd_export.documents.base import Accuracy
from dskd_export.validation.accuracy import accuracy_of


def evaluate_model(
    model: Callable[[Tensor], Tensor] | nn.Module, batches: Iterable[tuple[Tensor, Tensor]]
) -> tuple[Accuracy, float]:
    """Compute top-1 and top-5 with 95 % intervals, and the mean cross-entropy in nats, in fp32.

    Args:
        model: images BxCxHxW -> logits BxK; a module is put in eval mode and back.
        batches: normalised images and class indices, on the model's device.
    """
    logits, labels = [], []
    with eval_mode(model) if isinstance(model, nn.Module) else torch.no_grad():
        for images_BCHW, labels_B in batches:
            logits.append(model(images_BCHW).float().cpu())
            labels.append(labels_B.cpu())
    logits_NK, labels_N = torch.cat(logits), torch.cat(labels)
    loss = float(F.cross_entropy(logits_NK, labels_N))
    return accuracy_of(logits_NK.numpy(), labels_N.numpy().astype(np.int64)), loss
