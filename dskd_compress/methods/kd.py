"""Logit distillation (Hinton et al., "Distilling the knowledge in a neural network", arXiv 1503.02531)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from dskd_compress.methods.base import LogitModule


def kd_loss(student_BK: Tensor, teacher_BK: Tensor, temperature: float) -> Tensor:
    """tau^2 KL(softmax(teacher / tau) || softmax(student / tau)), mean over images, in nats, fp32.

    tau^2 keeps the size of the gradient the same for any temperature (section 2).

    Args:
        student_BK: logits that get the gradient.
        teacher_BK: logits that do not.
        temperature: tau > 0.
    """
    student_log_BK = F.log_softmax(student_BK.float() / temperature, dim=1)
    teacher_log_BK = F.log_softmax(teacher_BK.detach().float() / temperature, dim=1)
    divergence = F.kl_div(student_log_BK, teacher_log_BK, reduction="batchmean", log_target=True)
    return divergence * temperature**2


class KdModule(LogitModule):
    """L = ce_weight CE(student, label) + kd_weight tau^2 KL(teacher || student)."""

    def distil(self, student_BK: Tensor, teacher_BK: Tensor, target: Tensor, progress: float) -> Tensor:
        """Compute the weighted KL divergence."""
        weight: float = self.method.kd_weight
        return weight * kd_loss(student_BK, teacher_BK, self.method.temperature)
