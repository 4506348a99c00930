"""Distillation by correlation (DIST, "Knowledge Distillation from A Stronger Teacher", arXiv 2205.10536).

Shape suffixes: B images, K classes, R rows, N items of a row.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dskd_compress.methods.base import LogitModule
from dskd_compress.methods.collectives import all_reduce_sum

PUBLISHED_WEIGHT = 2.0
_TINY = 1e-8


def pearson(one_RN: Tensor, other_RN: Tensor) -> Tensor:
    """Pearson correlation of each row with the same row of the other, [R] in [-1, 1]; 0 for a constant row."""
    return F.cosine_similarity(
        one_RN - one_RN.mean(dim=1, keepdim=True), other_RN - other_RN.mean(dim=1, keepdim=True), dim=1
    )


def pearson_over_batch(one_BK: Tensor, other_BK: Tensor) -> Tensor:
    """Pearson correlation of each column over the batch of all processes, [K]; 0 for a constant column."""
    count = all_reduce_sum(one_BK.new_tensor(one_BK.shape[0]))
    one_BK, other_BK = (
        values_BK - all_reduce_sum(values_BK.sum(dim=0)) / count for values_BK in (one_BK, other_BK)
    )
    products = torch.stack((one_BK * other_BK, one_BK.square(), other_BK.square())).sum(dim=1)
    covariance_K, *squares = all_reduce_sum(products).unbind()
    norms = [square_K.clamp(min=_TINY**2).sqrt() for square_K in squares]
    return covariance_K / (norms[0] * norms[1])


def dist_loss(
    student_BK: Tensor,
    teacher_BK: Tensor,
    *,
    inter_weight: float = PUBLISHED_WEIGHT,
    intra_weight: float = PUBLISHED_WEIGHT,
    temperature: float = 4.0,
) -> Tensor:
    """tau^2 (beta L_inter + gamma L_intra), fp32 (equations 5, 8 to 10), without unit.

        L_inter = 1 - mean over images  of pearson(Y_student[b, :], Y_teacher[b, :])
        L_intra = 1 - mean over classes of pearson(Y_student[:, k], Y_teacher[:, k])
        Y       = softmax(logits / tau) over classes

    tau^2 is in the published code, not in the equations.

    Args:
        student_BK: logits that get the gradient.
        teacher_BK: logits that do not.
        inter_weight: beta.
        intra_weight: gamma.
        temperature: tau > 0.
    """
    student_BK, teacher_BK = (
        (logits_BK.float() / temperature).softmax(dim=1) for logits_BK in (student_BK, teacher_BK.detach())
    )
    inter = 1 - pearson(student_BK, teacher_BK).mean()
    intra = 1 - pearson_over_batch(student_BK, teacher_BK).mean()
    return temperature**2 * (inter_weight * inter + intra_weight * intra)


class DistModule(LogitModule):
    """L = ce_weight CE(student, label) + DIST(teacher, student)."""

    def distil(self, student_BK: Tensor, teacher_BK: Tensor, target: Tensor, progress: float) -> Tensor:
        """Compute the DIST loss."""
        method = self.method
        weights = {"inter_weight": method.inter_weight, "intra_weight": method.intra_weight}
        return dist_loss(student_BK, teacher_BK, temperature=method.temperature, **weights)
