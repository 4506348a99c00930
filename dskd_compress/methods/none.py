"""Cross-entropy only: the student without a teacher."""

from __future__ import annotations

from torch import Tensor

from dskd_compress.methods.base import Losses, StepContext, StudentModule


class CrossEntropyModule(StudentModule):
    """L = CE(student, label)."""

    def forward(self, images_BCHW: Tensor, target: Tensor, teacher: None, context: StepContext) -> Losses:
        """Compute the loss of a batch."""
        logits_BK = self.student(images_BCHW)
        return Losses(logits_BK, {"ce": self.cross_entropy(logits_BK, target)}, {})
