from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from torch import Tensor

from dskd_compress.config import DkdMethod
from dskd_compress.methods import Pair, create_task
from dskd_compress.methods.base import StepContext
from dskd_compress.methods.dkd import dkd_loss
from dskd_compress.methods.kd import kd_loss


def logits(seed: int, scale: float = 3.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).normal(size=(6, 5))


@pytest.mark.parametrize(("alpha", "beta", "tau"), [(1.0, 8.0, 4.0), (0.5, 2.0, 1.0)])
def test_equals_scipy(alpha: float, beta: float, tau: float) -> None:
    """Probabilities and relative entropies, image by image, as equation 7 is written."""
    student, teacher, labels = logits(0), logits(1), [0, 1, 2, 3, 4, 0]
    losses = []
    for s, t, label in zip(softmax(student / tau, axis=1), softmax(teacher / tau, axis=1), labels, strict=True):
        binary = entropy([t[label], 1 - t[label]], [s[label], 1 - s[label]])
        others = entropy(np.delete(t, label), np.delete(s, label))  # scipy scales both to sum to 1
        losses.append(tau**2 * (alpha * binary + beta * others))
    found = dkd_loss(
        torch.tensor(student),
        torch.tensor(teacher),
        torch.tensor(labels),
        target_weight=alpha,
        other_weight=beta,
        temperature=tau,
    )
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-5)


def test_with_the_teachers_own_weight_it_is_plain_distillation() -> None:
    """Equation 6: KD = TCKD + (1 - p_target of the teacher) NCKD."""
    student, teacher, label = torch.tensor(logits(0))[:1], torch.tensor(logits(1))[:1], torch.tensor([2])
    weight = float(1 - (teacher / 4).softmax(dim=1)[0, 2])
    found = dkd_loss(student, teacher, label, other_weight=weight)
    torch.testing.assert_close(found, kd_loss(student, teacher, 4.0))


def test_of_a_mixed_target_the_likeliest_class_counts() -> None:
    student, teacher, labels = torch.tensor(logits(0)), torch.tensor(logits(1)), torch.arange(6) % 5
    mixed = 0.6 * torch.nn.functional.one_hot(labels, 5) + 0.4 * torch.nn.functional.one_hot((labels + 1) % 5, 5)
    assert torch.equal(dkd_loss(student, teacher, mixed), dkd_loss(student, teacher, labels))
    assert not torch.equal(dkd_loss(student, teacher, labels), dkd_loss(student, teacher, (labels + 1) % 5))


def test_stays_finite_where_the_teacher_is_certain_and_gives_it_no_gradient() -> None:
    student = torch.tensor(logits(0), requires_grad=True)
    teacher = torch.tensor(logits(1, scale=500.0), requires_grad=True)
    loss = dkd_loss(student, teacher, torch.arange(6) % 5, temperature=1.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
    assert teacher.grad is None
    assert float(dkd_loss(student, student, torch.arange(6) % 5)) == pytest.approx(0.0, abs=1e-6)


def test_the_distillation_rises_and_the_labels_do_not_wait(
    cnn_pair: Pair, images_BCHW: Tensor, labels_B: Tensor
) -> None:
    method = DkdMethod(ramp_fraction=0.5)
    task = create_task(method, cnn_pair.student, cnn_pair, label_smoothing=0, seed=0, device=torch.device("cpu"))
    task.eval()
    terms = {}
    for progress in (0.0, 0.25, 0.5, 1.0):
        result = task(images_BCHW, labels_B, StepContext(progress=progress))
        terms[progress] = {name: float(v.detach()) for name, v in result["terms"].items()}
    full = terms[1.0]["dkd"]
    assert full > 0
    assert [terms[p]["dkd"] for p in terms] == pytest.approx([0.0, 0.5 * full, full, full])
    assert len({values["ce"] for values in terms.values()}) == 1
