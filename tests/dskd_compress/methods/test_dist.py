from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import pearsonr

from dskd_compress.methods.dist import dist_loss, pearson, pearson_over_batch


@pytest.mark.parametrize(("beta", "gamma", "tau"), [(2.0, 2.0, 4.0), (1.0, 0.5, 1.0)])
def test_equals_scipy(beta: float, gamma: float, tau: float) -> None:
    rng = np.random.default_rng(0)
    student, teacher = 3 * rng.normal(size=(6, 5)), 3 * rng.normal(size=(6, 5))
    s, t = softmax(student / tau, axis=1), softmax(teacher / tau, axis=1)
    inter = 1 - np.mean([pearsonr(s[b], t[b]).statistic for b in range(6)])
    intra = 1 - np.mean([pearsonr(s[:, k], t[:, k]).statistic for k in range(5)])
    found = dist_loss(
        torch.tensor(student), torch.tensor(teacher), inter_weight=beta, intra_weight=gamma, temperature=tau
    )
    assert float(found) == pytest.approx(tau**2 * (beta * inter + gamma * intra), rel=1e-4)


def test_zero_for_equal_logits_and_no_gradient_to_the_teacher() -> None:
    student = torch.randn(6, 5, requires_grad=True)
    teacher = student.detach().clone().requires_grad_()
    loss = dist_loss(student, teacher)
    loss.backward()
    assert float(loss) == pytest.approx(0.0, abs=1e-4)
    assert teacher.grad is None


def test_scale_and_shift_of_a_row_do_not_matter_and_a_constant_row_correlates_with_nothing() -> None:
    rows = torch.randn(4, 7)
    torch.testing.assert_close(pearson(rows, 3 * rows + 2), torch.ones(4))
    torch.testing.assert_close(pearson(rows, -rows), -torch.ones(4))
    constant = torch.ones(4, 7, requires_grad=True)
    found = pearson(constant, rows)
    assert torch.equal(found, torch.zeros(4))
    found.sum().backward()
    assert constant.grad is not None
    assert torch.isfinite(constant.grad).all()


def test_one_image_has_no_relations_between_images() -> None:
    student, teacher = torch.randn(1, 5, requires_grad=True), torch.randn(1, 5)
    loss = dist_loss(student, teacher, inter_weight=0.0, intra_weight=1.0, temperature=1.0)
    assert float(loss) == pytest.approx(1.0)
    loss.backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_over_the_batch_it_is_the_same_correlation_with_the_same_gradient() -> None:
    torch.manual_seed(0)
    one, other = torch.randn(9, 5), torch.randn(9, 5)
    gradients = []
    for correlate in (pearson_over_batch, lambda a, b: pearson(a.T, b.T)):
        leaf = one.clone().requires_grad_()
        found = correlate(leaf, other)
        found.square().sum().backward()
        gradients.append((found.detach(), leaf.grad))
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_column_that_is_constant_correlates_with_nothing_and_gets_a_finite_gradient() -> None:
    constant = torch.ones(6, 3, requires_grad=True)
    found = pearson_over_batch(constant, torch.randn(6, 3))
    torch.testing.assert_close(found, torch.zeros(3))
    found.sum().backward()
    assert constant.grad is not None
    assert constant.grad.isfinite().all()
