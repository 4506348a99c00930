"""Decoupled logit distillation (DKD, "Decoupled Knowledge Distillation", arXiv 2203.08679).

Shape suffixes: B images, K classes, J the K - 1 others.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dskd_compress.methods.base import LogitModule, get_labels, ramp

PUBLISHED_OTHER_WEIGHT = 8.0


def dkd_loss(
    student_BK: Tensor,
    teacher_BK: Tensor,
    target: Tensor,
    *,
    target_weight: float = 1.0,
    other_weight: float = PUBLISHED_OTHER_WEIGHT,
    temperature: float = 4.0,
) -> Tensor:
    """tau^2 (alpha TCKD + beta NCKD), mean over images, in nats, fp32 (equation 7).

        TCKD = KL(b_teacher || b_student)      b = (p_target, 1 - p_target)
        NCKD = KL(r_teacher || r_student)      r = softmax over the other K - 1 classes

    With alpha = 1 and beta = 1 - p_target of the teacher it is the KL divergence of plain KD (equation 6).

    Args:
        student_BK: logits that get the gradient; K of 2 or more.
        teacher_BK: logits that do not.
        target: class indices [B], or a mixed BxK distribution, of which the likeliest class counts as
            the target: the paper knows one only.
        target_weight: alpha.
        other_weight: beta.
        temperature: tau > 0.
    """
    logits_2BK = torch.stack((student_BK.float(), teacher_BK.detach().float())) / temperature
    is_target_BK = F.one_hot(get_labels(target), student_BK.shape[1]).bool()
    others_2BJ = logits_2BK.masked_select(~is_target_BK).view(2, student_BK.shape[0], -1)
    # (log p_target, log(1 - p_target)) as a softmax over two numbers: exact also where p_target is near 1.
    binary_2B2 = torch.stack((logits_2BK.masked_select(is_target_BK).view(2, -1), others_2BJ.logsumexp(2)), dim=2)
    return temperature**2 * (target_weight * _divergence(binary_2B2) + other_weight * _divergence(others_2BJ))


def _divergence(logits_2BN: Tensor) -> Tensor:
    student_log_BN, teacher_log_BN = logits_2BN.log_softmax(dim=2)
    return F.kl_div(student_log_BN, teacher_log_BN, reduction="batchmean", log_target=True)


class DkdModule(LogitModule):
    """L = ce_weight CE(student, label) + ramp DKD(teacher, student)."""

    def distil(self, student_BK: Tensor, teacher_BK: Tensor, target: Tensor, progress: float) -> Tensor:
        """Compute the DKD loss, ramped up."""
        method = self.method
        weights = {"target_weight": method.target_weight, "other_weight": method.other_weight}
        loss = dkd_loss(student_BK, teacher_BK, target, temperature=method.temperature, **weights)
        return ramp(progress, method.ramp_fraction) * loss
