"""Logit distillation (Hinton et al., "Distilling the knowledge in a neural network", arXiv 1503.02531)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dskd_compress.config import KdMethod
from dskd_compress.methods.base import Losses, StudentModule, TeacherOutput, agreement


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


class KdModule(StudentModule):
    """L = ce_weight CE(student, label) + kd_weight tau^2 KL(teacher || student)."""

    def __init__(self, student: nn.Module, method: KdMethod, label_smoothing: float) -> None:
        super().__init__(student, label_smoothing)
        self.method = method

    def forward(
        self, images_BCHW: Tensor, target: Tensor, teacher: TeacherOutput | None, progress: float
    ) -> Losses:
        """Losses of a batch."""
        assert teacher is not None
        logits_BK = self.student(images_BCHW)
        terms = {
            "ce": self.method.ce_weight * self.cross_entropy(logits_BK, target),
            "kd": self.method.kd_weight * kd_loss(logits_BK, teacher.logits_BK, self.method.temperature),
        }
        return Losses(logits_BK, terms, agreement(logits_BK, teacher))
