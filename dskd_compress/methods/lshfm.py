"""Mimicking the teacher's feature (LSHFM, "Distilling Knowledge by Mimicking Features", arXiv 2011.01424).

Three deviations from the published code. The layer that brings the student's feature to the teacher's
channels is thrown away after training, where LSHFM leaves it in the student in front of its classifier: the
deployed student is the plain timm model for every method here. The layer is there also where the
channels agree. And with `feature_norm: teacher_stats`, the default, losses are taken in the standardised
space that DSKD works in, so that the two differ in the target only.

As published: `feature_norm: none`, `hash_std: fc`, `hash_bias: median` (on CIFAR; zero on ImageNet).

Shape suffixes: B images, C channels, M hash bits.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dskd_compress.config import LshfmMethod
from dskd_compress.methods.base import Losses, StepContext, StudentModule, TeacherOutput, monitor_agreement, ramp
from dskd_compress.methods.features import FeatureSpace, Projection, pool, read_student
from dskd_compress.methods.logit import logit_terms
from dskd_compress.methods.lsh import HashLoss, hash_agreement
from dskd_compress.methods.pairing import Taps


class LshfmModule(StudentModule):
    """L = CE + lsh_weight LSH(P(F_s) -> z_T) + logit term."""

    def __init__(
        self, student: nn.Module, taps: Taps, method: LshfmMethod, label_smoothing: float, seed: int
    ) -> None:
        super().__init__(student, label_smoothing)
        self.method, self.tap = method, taps.student
        self.space = FeatureSpace(taps.teacher.channels, method.feature_norm)
        self.hash_loss = HashLoss(taps.teacher.channels, taps.head, method, seed)
        self.projection = Projection(taps.student, taps.teacher)

    def forward(self, images_BCHW: Tensor, target: Tensor, teacher: TeacherOutput, context: StepContext) -> Losses:
        """Compute the losses of a batch."""
        method = self.method
        logits_BK, feat = read_student(self.student, self.tap, images_BCHW)
        u = self.projection(feat)
        with torch.autocast(images_BCHW.device.type, enabled=False):
            z_T = self.space.standardise(teacher.tapped)
            lsh = method.lsh_weight * self.hash_loss(u, z_T, teacher.logits_BK, target)
            distillation = {"lsh": lsh, **logit_terms(method, logits_BK, teacher.logits_BK, target)}
            weight = ramp(context.progress, method.ramp_fraction)
            terms = {"ce": method.ce_weight * self.cross_entropy(logits_BK, target)}
            terms |= {name: weight * term for name, term in distillation.items()}
            monitors = monitor_agreement(logits_BK, teacher)
            if context.wants_monitors:
                planes_MC, bias_M = self.hash_loss.planes_MC, self.hash_loss.bias_M
                monitors["hash_agreement"] = hash_agreement(pool(u.detach()), pool(z_T), planes_MC, bias_M)
        return Losses(logits_BK, terms, monitors)

    def fit(self, feats: Iterable[Tensor]) -> None:
        """Set m, sigma and b from the teacher's features of some training images."""
        self.hash_loss.fit(feats, self.space)
