from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit
from support import make_pair
from torch import Tensor

from dskd_compress.config import DskdMethod, LshfmMethod
from dskd_compress.methods import MethodTask, Pair, create_task
from dskd_compress.methods.lshfm import LshfmModule


def make_task(method: LshfmMethod | DskdMethod, pair: Pair) -> MethodTask:
    return create_task(method, pair.student, pair, label_smoothing=0, seed=0, device=torch.device("cpu"))


@pytest.mark.parametrize("correct_only", [True, False])
@pytest.mark.parametrize("norm", ["teacher_stats", "none"])
def test_the_term_equals_numpy(
    norm: str, correct_only: bool, cnn_pair: Pair, images_BCHW: Tensor, labels_B: Tensor
) -> None:
    method = LshfmMethod.model_validate(
        {"feature_norm": norm, "correct_only": correct_only, "hash_bias": "median"}
    )
    task = make_task(method, cnn_pair)
    task.fit_statistics([images_BCHW[:5], images_BCHW[5:]])
    task.eval()
    module = task.module
    assert isinstance(module, LshfmModule)
    with torch.no_grad():
        said = cnn_pair.teacher(images_BCHW).argmax(dim=1)
        labels_B = torch.where(torch.arange(8) < 3, said, (said + 1) % 10)  # right on three of eight
        result = task(images_BCHW, labels_B)
        ours, theirs = (
            model.forward_head(model.forward_features(images_BCHW), pre_logits=True).double().numpy()
            for model in (cnn_pair.student, cnn_pair.teacher)
        )
    layer = module.projection.body[0]
    u = ours @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
    z = theirs
    if norm == "teacher_stats":
        std = theirs.std(axis=0)
        z = (theirs - theirs.mean(axis=0)) / np.maximum(std, 0.01 * np.sort(std)[(len(std) - 1) // 2])
    planes = module.hash_loss.planes_MC.double().numpy()
    bias = -np.sort(z @ planes.T, axis=0)[3]  # of an even number torch takes the lower median
    bits, p = (z @ planes.T + bias) > 1e-7, expit(u @ planes.T + bias)
    entropy = -np.where(bits, np.log(p), np.log(1 - p)).mean(axis=1)
    loss_B = ((u - z) ** 2).mean(axis=1) + entropy
    expected = 6.0 * loss_B[:3].mean() if correct_only else 6.0 * loss_B.mean()
    assert float(result["terms"]["lsh"]) == pytest.approx(expected, rel=2e-3)


def test_where_the_teacher_is_never_right_nothing_is_mimicked(cnn_pair: Pair, images_BCHW: Tensor) -> None:
    task = make_task(LshfmMethod(), cnn_pair)
    with torch.no_grad():
        wrong_B = (cnn_pair.teacher(images_BCHW).argmax(dim=1) + 1) % 10
    task.train()
    assert float(task(images_BCHW, wrong_B)["terms"]["lsh"].detach()) == 0.0


@pytest.mark.parametrize("tap", ["vector", "map"])
def test_dskd_with_the_teachers_feature_as_its_target_is_lshfm(
    tap: str, images_BCHW: Tensor, labels_B: Tensor
) -> None:
    """Same planes, same loss, same gradient in the student: the two methods differ in the target only."""
    shared = {"tap": tap, "lsh_weight": 6.0, "correct_only": False, "ramp_fraction": 0.0}
    terms, gradients, projection = [], [], None
    for method in (LshfmMethod.model_validate(shared), DskdMethod.model_validate({**shared, "target_mix": 1.0})):
        task = make_task(method, make_pair("test_efficientnet", "test_resnet"))
        task.fit_statistics([images_BCHW])
        projection = projection or task.module.projection.state_dict()
        task.module.projection.load_state_dict(projection)
        task.train()
        term = task(images_BCHW, labels_B)["terms"]["lsh"]
        term.backward()
        terms.append(term.detach())
        gradients.append(
            {name: p.grad for name, p in task.module.student.named_parameters() if p.grad is not None}
        )
    torch.testing.assert_close(*terms)
    assert gradients[0].keys() == gradients[1].keys()
    assert gradients[0]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-3, atol=1e-6)


def test_the_student_that_is_deployed_has_no_layer_of_the_method(cnn_pair: Pair) -> None:
    task = make_task(LshfmMethod(), cnn_pair)
    assert set(task.get_eval_model().state_dict()) == set(cnn_pair.student.state_dict())
    assert set(task.discarded()) == {"projection"}
    assert {"space.mean_C", "space.std_C", "hash_loss.planes_MC", "hash_loss.bias_M"} <= set(task.get_task_state())
