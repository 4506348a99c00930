from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, top_k_accuracy_score
from support import CLASSES, make_model
from torch import Tensor

from dskd_compress.training.evaluate import evaluate_model

IMAGES = 37


@pytest.fixture
def logits_NK() -> Tensor:
    return torch.randn(IMAGES, CLASSES, generator=torch.Generator().manual_seed(0)) * 2


@pytest.fixture
def labels_N() -> Tensor:
    return torch.randint(CLASSES, (IMAGES,), generator=torch.Generator().manual_seed(1))


def split(logits_NK: Tensor, labels_N: Tensor, batch: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(logits_NK.split(batch), labels_N.split(batch), strict=True))


@pytest.mark.parametrize("batch", [1, 8, IMAGES])
def test_against_sklearn_and_scipy(batch: int, logits_NK: Tensor, labels_N: Tensor) -> None:
    accuracy, loss = evaluate_model(lambda logits: logits, split(logits_NK, labels_N, batch))
    scores, labels = logits_NK.numpy(), labels_N.numpy()
    assert accuracy.images == IMAGES
    assert accuracy.top1.value == pytest.approx(accuracy_score(labels, scores.argmax(1)))
    assert accuracy.top5 is not None
    expected = top_k_accuracy_score(labels, scores, k=5, labels=np.arange(CLASSES))
    assert accuracy.top5.value == pytest.approx(expected)
    right = round(accuracy.top1.value * IMAGES)
    interval = binomtest(right, IMAGES).proportion_ci(method="wilson")
    assert (accuracy.top1.low, accuracy.top1.high) == pytest.approx((interval.low, interval.high), abs=1e-4)
    mean = -log_softmax(scores.astype(np.float64), axis=1)[np.arange(IMAGES), labels].mean()
    assert loss == pytest.approx(mean, rel=1e-5)


def test_few_classes_have_no_top5() -> None:
    accuracy, loss = evaluate_model(lambda x: x, [(torch.eye(3), torch.arange(3))])
    assert accuracy.top5 is None
    assert accuracy.top1.value == 1.0
    assert loss == pytest.approx(math.log(math.e + 2) - 1)


def test_half_precision_is_summed_in_fp32(logits_NK: Tensor, labels_N: Tensor) -> None:
    large = logits_NK.half() + 1000  # the loss of such logits does not fit fp16
    _, loss = evaluate_model(lambda x: x, [(large, labels_N)])
    _, expected = evaluate_model(lambda x: x, [(large.double(), labels_N)])
    assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_a_module_is_evaluated_in_eval_mode_and_given_back_as_it_was(training: bool) -> None:
    model = make_model("test_resnet", drop_rate=0.5).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images_BCHW, labels_B = torch.randn(6, 3, 32, 32), torch.zeros(6, dtype=torch.int64)
    seen = [evaluate_model(model, [(images_BCHW, labels_B)]) for _ in range(2)]
    assert seen[0] == seen[1]  # no dropout
    assert model.training == training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
