from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from dskd_compress.config import FitNetMethod
from dskd_compress.methods import Pair, create_task
from dskd_compress.methods.fitnet import FitNetModule, hint_loss


def test_the_loss_equals_numpy_and_the_teacher_gets_no_gradient() -> None:
    regressed, feat = torch.randn(3, 4, 2, 2, requires_grad=True), torch.randn(3, 4, 2, 2, requires_grad=True)
    loss = hint_loss(regressed, feat)
    difference = regressed.detach().numpy() - feat.detach().numpy()
    assert float(loss.detach()) == pytest.approx(np.linalg.norm(difference) ** 2 / difference.size, rel=1e-5)
    loss.backward()
    assert feat.grad is None


@pytest.mark.parametrize("norm", ["none", "teacher_stats"])
@pytest.mark.parametrize("tap", ["vector", "map"])
def test_the_term_is_the_weighted_loss_of_the_regressed_tap(
    tap: str, norm: str, cnn_pair: Pair, images_BCHW: Tensor, labels_B: Tensor
) -> None:
    method = FitNetMethod.model_validate({"tap": tap, "feature_norm": norm, "feature_weight": 7.0})
    task = create_task(method, cnn_pair.student, cnn_pair, label_smoothing=0, seed=0, device=torch.device("cpu"))
    task.fit_statistics([images_BCHW])
    task.eval()
    module = task.module
    assert isinstance(module, FitNetModule)
    with torch.no_grad():
        result = task(images_BCHW, labels_B)
        ours, theirs = (
            model.forward_features(images_BCHW)
            if tap == "map"
            else model.forward_head(model.forward_features(images_BCHW), pre_logits=True)
            for model in (cnn_pair.student, cnn_pair.teacher)
        )
        layer = module.regressor.body[0]
        weight = layer.weight.reshape(layer.weight.shape[0], -1)
        regressed = torch.einsum("oi,bi...->bo...", weight, ours)
        axes = [0] if tap == "vector" else [0, 2, 3]
        shape = (1, -1) if tap == "vector" else (1, -1, 1, 1)
        regressed = regressed + layer.bias.view(shape)
        if norm == "teacher_stats":
            std = theirs.std(axes, unbiased=False, keepdim=True)
            theirs = (theirs - theirs.mean(axes, keepdim=True)) / std.clamp(min=0.01 * float(std.median()))
    expected = 7.0 * float((regressed - theirs).square().mean())
    assert float(result["terms"]["hint"]) == pytest.approx(expected, rel=1e-3)
