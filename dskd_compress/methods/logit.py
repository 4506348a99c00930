"""The optional logit term of every feature method.

Shape suffixes: B images, K classes.
"""

from __future__ import annotations

from torch import Tensor

from dskd_compress.config import FeatureMethod
from dskd_compress.methods.dist import dist_loss
from dskd_compress.methods.dkd import dkd_loss
from dskd_compress.methods.kd import kd_loss


def logit_terms(
    method: FeatureMethod, student_BK: Tensor, teacher_BK: Tensor, target: Tensor
) -> dict[str, Tensor]:
    """Compute the weighted term `logit`, if any, with the published weights between the parts of DIST and DKD.

    Args:
        target: class indices [B] or a mixed BxK distribution.
    """
    tau = method.temperature
    if method.logit_loss == "none" or method.logit_weight == 0:
        return {}
    if method.logit_loss == "kl":
        loss = kd_loss(student_BK, teacher_BK, tau)
    elif method.logit_loss == "dist":
        loss = dist_loss(student_BK, teacher_BK, temperature=tau)
    else:
        loss = dkd_loss(student_BK, teacher_BK, target, temperature=tau)
    return {"logit": method.logit_weight * loss}
