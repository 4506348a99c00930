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

import torch
from torch import Tensor, nn

from dskd_compress.config import LshfmMethod
from dskd_compress.methods.base import Losses, TeacherOutput, agreement, ramp
from dskd_compress.methods.features import Projection, pool
from dskd_compress.methods.logit import logit_terms
from dskd_compress.methods.lsh import LshModule, hash_agreement
from dskd_compress.taps import Tap, TapHead


class LshfmModule(LshModule):
    """L = CE + lsh_weight LSH(P(F_s) -> z_T) + logit term."""

    def __init__(
        self,
        student: nn.Module,
        student_tap: Tap,
        teacher_tap: Tap,
        teacher_head: TapHead | None,
        method: LshfmMethod,
        label_smoothing: float,
        seed: int,
    ) -> None:
        super().__init__(student, label_smoothing, student_tap, teacher_tap.channels, teacher_head, method, seed)
        self.method = method
        self.projection = Projection(student_tap, teacher_tap)

    def forward(
        self, images_BCHW: Tensor, target: Tensor, teacher: TeacherOutput | None, progress: float
    ) -> Losses:
        """Losses of a batch."""
        assert teacher is not None
        assert teacher.feat is not None
        method = self.method
        logits_BK, feat = self.read(images_BCHW)
        u = self.projection(feat)
        with torch.autocast(images_BCHW.device.type, enabled=False):
            z_teacher = self.standardise(teacher.feat)
            distillation = {
                "lsh": method.lsh_weight * self.distil_loss(u, z_teacher, teacher.logits_BK, target),
                **logit_terms(method, logits_BK, teacher.logits_BK, target),
            }
            share = ramp(progress, method.ramp_fraction)
            terms = {"ce": method.ce_weight * self.cross_entropy(logits_BK, target)}
            terms |= {name: share * term for name, term in distillation.items()}
            monitors = agreement(logits_BK, teacher)
            if self.watching:
                found = hash_agreement(pool(u.detach()), pool(z_teacher), self.planes_MC, self.bias_M)
                monitors["hash_agreement"] = found
        return Losses(logits_BK, terms, monitors)
