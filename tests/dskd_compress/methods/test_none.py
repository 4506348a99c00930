from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from support import CLASSES, make_model
from torch import Tensor

from dskd_compress.methods.none import CrossEntropyModule


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mixed", [False, True])
def test_is_the_cross_entropy(smoothing: float, mixed: bool, images_BCHW: Tensor, labels_B: Tensor) -> None:
    """Against scipy: -sum q log p with q smoothed towards the uniform distribution."""
    model = make_model("test_resnet").eval()
    module = CrossEntropyModule(model, smoothing)
    one_hot_BK = np.eye(CLASSES)[labels_B.numpy()]
    target: Tensor = labels_B
    if mixed:
        one_hot_BK = 0.7 * one_hot_BK + 0.3 * one_hot_BK[::-1]
        target = torch.tensor(one_hot_BK, dtype=torch.float32)
    losses = module(images_BCHW, target, None, 0.0)
    q_BK = (1 - smoothing) * one_hot_BK + smoothing / CLASSES
    expected = -(q_BK * log_softmax(losses.logits_BK.detach().double().numpy(), axis=1)).sum(axis=1).mean()
    assert set(losses.terms) == {"ce"}
    assert float(losses.terms["ce"].detach()) == pytest.approx(expected, rel=1e-5)
    assert losses.monitors == {}
    with torch.no_grad():
        assert torch.equal(losses.logits_BK, model(images_BCHW))


def test_every_weight_of_the_student_gets_a_gradient(images_BCHW: Tensor, labels_B: Tensor) -> None:
    model = make_model("test_efficientnet")
    CrossEntropyModule(model, 0.0)(images_BCHW, labels_B, None, 1.0).terms["ce"].backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
