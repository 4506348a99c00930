from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from support import CLASSES, make_model
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from dskd_compress.methods.base import OUTSIDE
from dskd_compress.methods.none import ClassifierModule, CrossEntropyModule, find_classifier
from dskd_export.errors import ModelError


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


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("test_resnet", 32),
        ("test_vit", 160),
        ("test_convnext", 64),
        ("levit_128s", 224),
        ("pit_ti_distilled_224", 224),
    ],
)
def test_the_classifier_alone_is_trained(name: str, size: int) -> None:
    """CNN, transformers, one with a batch norm in its classifiers, two with two classifiers."""
    model = make_model(name)
    module = ClassifierModule(model, 0.0).train()
    layers = find_classifier(model)
    trained = {id(parameter) for layer in layers for parameter in layer.parameters()}
    module(torch.randn(2, 3, size, size), torch.tensor([0, 1]), None, OUTSIDE).terms["ce"].backward()
    for parameter in model.parameters():
        assert parameter.requires_grad == (parameter.grad is not None) == (id(parameter) in trained)
    inside = {part for layer in layers for part in layer.modules()}
    assert {part for part in model.modules() if part.training} == inside
    assert not any(part.training for part in module.eval().modules())


def test_nothing_before_the_classifier_is_kept_for_a_backward_pass() -> None:
    """No activation of the features is saved: what is saved is the vector and the classifier's own."""
    module = ClassifierModule(make_model("test_resnet"), 0.0).train()
    saved: list[int] = []
    with saved_tensors_hooks(lambda tensor: (saved.append(tensor.numel()), tensor)[1], lambda tensor: tensor):
        module(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3]), None, OUTSIDE)
    assert 0 < sum(saved) < 4 * 96 + 4 * 96 * CLASSES + 8 * CLASSES * 4


def test_a_model_without_a_classifier_is_named() -> None:
    model = make_model("test_resnet")
    model.reset_classifier(0)  # type: ignore[operator]
    with pytest.raises(ModelError, match=r"test_resnet.*no classifier") as caught:
        ClassifierModule(model, 0.0)
    assert "teacher.fit=all" in str(caught.value.hint)


def test_frozen_batch_norms_stay_in_eval_mode() -> None:
    """Also within a classifier that is trained alone."""
    model = make_model("levit_128s")
    module = ClassifierModule(model, 0.0)
    module.freeze_batch_norm()
    module.train()
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert norms
    assert not any(part.training for part in norms)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert {parameter.ndim for parameter in trainable} == {1, 2}
    assert not {id(p) for p in trainable} & {id(p) for norm in norms for p in norm.parameters()}
    assert any(part.training for part in find_classifier(model))
