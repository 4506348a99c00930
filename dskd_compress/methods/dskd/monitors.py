"""Health of a DSKD step: does the teacher's head read the features, and do they still differ?

Shape suffixes: B images, C channels, K classes, M hash bits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dskd_compress.methods.features import pool
from dskd_compress.methods.lsh import HashLoss, bit_entropy, hash_logits


@torch.no_grad()
def monitor(
    u: Tensor, v: Tensor, z_T: Tensor, u_BK: Tensor, v_BK: Tensor, teacher_BK: Tensor, hash_loss: HashLoss
) -> dict[str, Tensor]:
    """Compute the monitors of a batch.

    Fractions in [0, 1], except: spreads (1 is the teacher's), the size of the hash logits, the entropy of a
    hash bit over the batch (in bits), and the head's mean log p(q) in nats, with q the teacher's distribution.

    Args:
        u: student features, as in `method.py`.
        v: virtual teacher.
        z_T: standardised teacher features.
        u_BK: logits c_T(u).
        v_BK: logits c_T(v).
        teacher_BK: logits of the teacher.
        hash_loss: with the planes W and b.
    """
    teacher_B, q_BK = teacher_BK.argmax(dim=1), teacher_BK.softmax(dim=1)
    u_BC, v_BC, z_BC = pool(u), pool(v), pool(z_T)
    hashed_u, hashed_v, hashed_z = (
        hash_logits(feat_BC, hash_loss.planes_MC, hash_loss.bias_M) for feat_BC in (u_BC, v_BC, z_BC)
    )
    spread = z_BC.std(dim=0).mean().clamp(min=1e-6)
    return {
        "head_agrees_on_projected": (u_BK.argmax(dim=1) == teacher_B).float().mean(),
        "head_agrees_on_denoised": (v_BK.argmax(dim=1) == teacher_B).float().mean(),
        "head_likelihood_projected": -F.cross_entropy(u_BK, q_BK),
        "head_likelihood_denoised": -F.cross_entropy(v_BK, q_BK),
        "hash_agreement": ((hashed_u > 0) == (hashed_z > 0)).float().mean(),
        "hash_agreement_denoised": ((hashed_v > 0) == (hashed_z > 0)).float().mean(),
        "hash_bit_entropy_denoised": bit_entropy(hashed_v),
        "hash_logit_size": hashed_u.abs().mean(),
        "projected_spread": u_BC.std(dim=0).mean() / spread,
        "denoised_spread": v_BC.std(dim=0).mean() / spread,
    }
