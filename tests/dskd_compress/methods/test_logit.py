from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from dskd_compress.config import DiffKdMethod, DskdMethod, FeatureMethod, FitNetMethod, LshfmMethod
from dskd_compress.methods import Pair, create_task
from dskd_compress.methods.base import StepContext
from dskd_compress.methods.dist import dist_loss
from dskd_compress.methods.dkd import dkd_loss
from dskd_compress.methods.kd import kd_loss
from dskd_compress.methods.logit import logit_terms

METHODS = get_args(FeatureMethod)


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_the_term_is_the_loss_that_it_names(kind: type, tau: float) -> None:
    student, teacher, labels = torch.randn(6, 5), torch.randn(6, 5), torch.arange(6) % 5
    expected = {
        "kl": kd_loss(student, teacher, tau),
        "dist": dist_loss(student, teacher, temperature=tau),
        "dkd": dkd_loss(student, teacher, labels, temperature=tau),
    }
    for name, loss in expected.items():
        found = logit_terms(kind(logit_loss=name, logit_weight=0.5, temperature=tau), student, teacher, labels)
        assert set(found) == {"logit"}
        torch.testing.assert_close(found["logit"], 0.5 * loss)
    assert len({float(loss) for loss in expected.values()}) == 3
    assert logit_terms(kind(logit_loss="none"), student, teacher, labels) == {}
    assert logit_terms(kind(logit_loss="kl", logit_weight=0), student, teacher, labels) == {}


def test_the_published_methods_have_none_and_dskd_has_one() -> None:
    assert {kind().logit_loss for kind in (FitNetMethod, DiffKdMethod, LshfmMethod)} == {"none"}
    assert DskdMethod().logit_loss == "dist"


@pytest.mark.parametrize("target", ["indices", "mixed"])
@pytest.mark.parametrize("loss", ["kl", "dist", "dkd"])
@pytest.mark.parametrize("kind", METHODS)
def test_the_term_teaches_the_student_and_nothing_else(
    kind: Any, loss: str, target: str, cnn_pair: Pair, images_BCHW: Tensor, labels_B: Tensor
) -> None:
    method = kind(logit_loss=loss, tap="vector")
    task = create_task(method, cnn_pair.student, cnn_pair, label_smoothing=0, seed=0, device=torch.device("cpu"))
    task.train()
    if target == "mixed":
        labels_B = torch.nn.functional.one_hot(labels_B, 10) * 0.7 + 0.03
    task(images_BCHW, labels_B, StepContext(progress=1.0))["terms"]["logit"].backward()
    got = {
        name for name, p in task.module.named_parameters() if p.grad is not None and float(p.grad.abs().sum()) > 0
    }
    assert got
    assert all(name.startswith("student.") for name in got)
