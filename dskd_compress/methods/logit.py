"""The logit term that every feature method can be given beside its own loss.

Shape suffixes: B images, K classes.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from dskd_compress.config.logit import LogitLoss
from dskd_compress.methods.dist import dist_loss
from dskd_compress.methods.dkd import dkd_loss
from dskd_compress.methods.kd import kd_loss


class LogitTerm(Protocol):
    """The keys of a method's section that describe the term."""

    @property
    def logit_loss(self) -> LogitLoss: ...  # noqa: D102
    @property
    def logit_weight(self) -> float: ...  # noqa: D102
    @property
    def temperature(self) -> float: ...  # noqa: D102


def logit_terms(method: LogitTerm, student_BK: Tensor, teacher_BK: Tensor, target: Tensor) -> dict[str, Tensor]:
    """The weighted term as `logit`, with the published weights between the parts of DIST and DKD; or nothing.

    Args:
        method: which loss, its weight and temperature.
        student_BK: logits that get the gradient.
        teacher_BK: logits that do not.
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
