"""Squared error to the teacher's feature (FitNets, "Hints for Thin Deep Nets", arXiv 1412.6550).

The paper trains with the hint first and distils logits then; here both losses are there at once, as in
the protocol of CRD (arXiv 1910.10699), and the hint is the last tap of both models instead of a
layer in the middle. `logit_loss: kl` adds the second part.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dskd_compress.config import FitNetMethod
from dskd_compress.methods.base import Losses, TeacherOutput, agreement, ramp
from dskd_compress.methods.features import FeatureModule, Projection
from dskd_compress.methods.logit import logit_terms
from dskd_compress.taps import Tap


def hint_loss(regressed: Tensor, feat: Tensor) -> Tensor:
    """mean (r(F_s) - F_t)^2 over images, channels and places (equation 2, which has the half of the sum).

    Args:
        regressed: r(F_s), the student's feature in the teacher's shape.
        feat: F_t, which gets no gradient.
    """
    return F.mse_loss(regressed, feat.detach())


class FitNetModule(FeatureModule):
    """L = CE + feature_weight hint + logit term; r is a 1x1 convolution on maps, a linear layer on vectors."""

    def __init__(
        self,
        student: nn.Module,
        student_tap: Tap,
        teacher_tap: Tap,
        method: FitNetMethod,
        label_smoothing: float,
    ) -> None:
        super().__init__(student, label_smoothing, student_tap, teacher_tap.channels, method.feature_norm)
        self.method = method
        self.regressor = Projection(student_tap, teacher_tap, norm=False)

    def forward(
        self, images_BCHW: Tensor, target: Tensor, teacher: TeacherOutput | None, progress: float
    ) -> Losses:
        """Losses of a batch."""
        assert teacher is not None
        assert teacher.feat is not None
        method = self.method
        logits_BK, feat = self.read(images_BCHW)
        regressed = self.regressor(feat)
        with torch.autocast(images_BCHW.device.type, enabled=False):
            distillation = {
                "hint": method.feature_weight * hint_loss(regressed, self.standardise(teacher.feat)),
                **logit_terms(method, logits_BK, teacher.logits_BK, target),
            }
            share = ramp(progress, method.ramp_fraction)
            terms = {"ce": method.ce_weight * self.cross_entropy(logits_BK, target)}
            terms |= {name: share * term for name, term in distillation.items()}
        return Losses(logits_BK, terms, agreement(logits_BK, teacher))
