"""Squared error to the teacher's feature (FitNets, "Hints for Thin Deep Nets", arXiv 1412.6550).

The paper trains with the hint first and distils logits then; here both losses are there at once, as in
the protocol of CRD (arXiv 1910.10699), and the hint is the last tap of both models instead of a
layer in the middle. `logit_loss: kl` adds the second part.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dskd_compress.config import FitNetMethod
from dskd_compress.methods.base import Losses, StepContext, StudentModule, TeacherOutput, monitor_agreement, ramp
from dskd_compress.methods.features import FeatureSpace, Projection, read_student
from dskd_compress.methods.logit import logit_terms
from dskd_compress.methods.pairing import Taps


def hint_loss(regressed: Tensor, feat: Tensor) -> Tensor:
    """mean (r(F_s) - F_t)^2 over images, channels and places (equation 2, which has the half of the sum).

    Args:
        regressed: r(F_s), the student's feature in the teacher's shape.
        feat: F_t, which gets no gradient.
    """
    return F.mse_loss(regressed, feat.detach())


class FitNetModule(StudentModule):
    """L = CE + feature_weight hint + logit term; r is a 1x1 convolution on maps, a linear layer on vectors."""

    def __init__(self, student: nn.Module, taps: Taps, method: FitNetMethod, label_smoothing: float) -> None:
        super().__init__(student, label_smoothing)
        self.method, self.tap = method, taps.student
        self.space = FeatureSpace(taps.teacher.channels, method.feature_norm)
        self.regressor = Projection(taps.student, taps.teacher, norm=False)

    def forward(self, images_BCHW: Tensor, target: Tensor, teacher: TeacherOutput, context: StepContext) -> Losses:
        """Compute the losses of a batch."""
        method = self.method
        logits_BK, feat = read_student(self.student, self.tap, images_BCHW)
        regressed = self.regressor(feat)
        with torch.autocast(images_BCHW.device.type, enabled=False):
            distillation = {
                "hint": method.feature_weight * hint_loss(regressed, self.space.standardise(teacher.tapped)),
                **logit_terms(method, logits_BK, teacher.logits_BK, target),
            }
            weight = ramp(context.progress, method.ramp_fraction)
            terms = {"ce": method.ce_weight * self.cross_entropy(logits_BK, target)}
            terms |= {name: weight * term for name, term in distillation.items()}
        return Losses(logits_BK, terms, monitor_agreement(logits_BK, teacher))

    def fit(self, feats: Iterable[Tensor]) -> None:
        """Set m and sigma from the teacher's features of some training images."""
        self.space.fit(feats)
