from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from dskd_compress.methods.kd import kd_loss


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_equals_scipy(temperature: float) -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(5, 7)) * 3, rng.normal(size=(5, 7)) * 3
    p = softmax(teacher / temperature, axis=1)
    divergence = (p * (np.log(p) - log_softmax(student / temperature, axis=1))).sum(axis=1).mean()
    found = kd_loss(torch.tensor(student), torch.tensor(teacher), temperature)
    assert float(found) == pytest.approx(divergence * temperature**2, rel=1e-5)


def test_zero_for_equal_logits_and_no_gradient_to_the_teacher() -> None:
    logits = torch.randn(4, 6, requires_grad=True)
    teacher = logits.detach().clone().requires_grad_()
    loss = kd_loss(logits, teacher, 2.0)
    assert float(loss) == pytest.approx(0.0, abs=1e-6)
    loss.backward()
    assert teacher.grad is None
