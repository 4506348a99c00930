"""Student features denoised by a diffusion model of the teacher's (DiffKD, arXiv 2305.15712).

    u       = trans(F_s)                               1x1 convolution into the teacher's channels
    z       = gamma u + (1 - gamma) eps                gamma = adapter(u), the noise adapter (section 3.4)
    refined = proj(DDIM(z, from t0))                   the gradient flows through the whole chain
    L_feat  = || refined - F_t ||^2                    (section 3.2)
    L_diff  = || eps_theta(F_t noised to t) - eps ||^2 (section 3.3, equation 5)
    L_rec   = || F_t - dec(enc(F_t)) ||^2              with an autoencoder, enc(F_t) in F_t's place (section 3.3)

The same once more on logits, with a KL divergence in place of the squared error. The denoiser is
DiffKD's: batch norm, no skip, full width, time embedding of unit variance. All of it is trained with
the student and then discarded. Layers as in the published code; biases in front of a batch norm are left out.

Shape suffixes: B images, C channels, H and W grid, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from dskd_compress.config import DiffKdMethod
from dskd_compress.methods.base import Losses, StepContext, StudentModule, TeacherOutput, monitor_agreement, ramp
from dskd_compress.methods.diffusion.denoiser import Bottleneck, make_denoiser
from dskd_compress.methods.diffusion.schedule import Diffusion
from dskd_compress.methods.features import FeatureSpace, Projection, pool, read_student
from dskd_compress.methods.kd import kd_loss
from dskd_compress.methods.logit import logit_terms
from dskd_compress.methods.noise import StepNoise
from dskd_compress.methods.pairing import Taps
from dskd_compress.taps import TapKind


class NoiseAdapter(nn.Module):
    """gamma in (0, 1) of each image: the weight of the feature in the starting point, the rest is noise."""

    def __init__(self, kind: TapKind, channels: int) -> None:
        super().__init__()
        if kind == "map":
            self.body: nn.Module = Bottleneck(channels, "bn", max_hidden=channels // 2)
        else:
            self.body = nn.Sequential(
                nn.Linear(channels, 2 * channels, bias=False),
                nn.BatchNorm1d(2 * channels),
                nn.ReLU(inplace=True),
                nn.Linear(2 * channels, channels, bias=False),
                nn.BatchNorm1d(channels),
            )
        self.predict = nn.Linear(channels, 2)

    def forward(self, feat: Tensor) -> Tensor:
        """BxC or BxCxHxW -> [B]."""
        gamma_B: Tensor = self.predict(pool(self.body(feat))).float().softmax(dim=1)[:, 0]
        return gamma_B


class Autoencoder(nn.Module):
    """A linear bottleneck for the teacher's channels."""

    def __init__(self, kind: TapKind, channels: int, latent: int) -> None:
        super().__init__()
        self.encoder = _pointwise(kind, channels, latent)
        self.decoder = nn.Conv2d(latent, channels, 1) if kind == "map" else nn.Linear(latent, channels)

    def forward(self, feat: Tensor) -> tuple[Tensor, Tensor]:
        """F_t -> the code without gradient, and the mean squared error of what is read back from it."""
        code = self.encoder(feat)
        return code.detach().float(), F.mse_loss(self.decoder(code).float(), feat)


def _pointwise(kind: TapKind, channels: int, to: int) -> nn.Sequential:
    if kind == "map":
        return nn.Sequential(nn.Conv2d(channels, to, 1, bias=False), nn.BatchNorm2d(to))
    return nn.Sequential(nn.Linear(channels, to, bias=False), nn.BatchNorm1d(to))


@dataclass(frozen=True)
class Refined:
    """Outputs of a branch for a batch: the losses of its parts, and the features to compare."""

    feat: Tensor
    target: Tensor
    diffusion: Tensor
    reconstruction: Tensor | None
    gamma_B: Tensor


class DiffusionBranch(nn.Module):
    """Denoiser, noise adapter and projection for one kind of feature, with an optional autoencoder.

    Args:
        trans: the student's feature -> the denoiser's channels, without the batch norm of P.
        latent: of the autoencoder; None for none.
        start_step: t0.
    """

    def __init__(
        self,
        trans: nn.Module,
        kind: TapKind,
        channels: int,
        latent: int | None,
        start_step: int,
        sample_steps: int,
    ) -> None:
        super().__init__()
        self.trans = trans
        self.autoencoder = None if latent is None else Autoencoder(kind, channels, latent)
        width = latent or channels
        self.denoiser = make_denoiser(
            kind, width, width=4.0, max_hidden=4 * width, norm="bn", skip=False, time="table"
        )
        self.adapter = NoiseAdapter(kind, width)
        self.proj = _pointwise(kind, width, width)
        self.diffusion = Diffusion(start_step, sample_steps)

    def forward(self, student: Tensor, teacher: Tensor, noise: StepNoise) -> Refined:
        """Denoise features of the student, in the shape of its tap, and compute the branch's own losses."""
        target, reconstruction = (teacher, None) if self.autoencoder is None else self.autoencoder(teacher)
        diffusion = self.diffusion.loss(self.denoiser, target, noise)
        u = self.trans(student).float()
        gamma_B = self.adapter(u)
        gamma = gamma_B.view(-1, *[1] * (u.ndim - 1))
        clean = self.diffusion.sample(self.denoiser, gamma * u + (1 - gamma) * noise.randn_like(u))
        return Refined(self.proj(clean).float(), target, diffusion, reconstruction, gamma_B.detach())


class DiffKdModule(StudentModule):
    """L = CE + L_feat + L_logits + L_diff of both + L_rec + logit term."""

    head_terms = frozenset({"diffusion", "reconstruction"})  # of the teacher's features alone

    def __init__(self, student: nn.Module, taps: Taps, method: DiffKdMethod, label_smoothing: float) -> None:
        super().__init__(student, label_smoothing)
        self.method, self.tap = method, taps.student
        kind, channels = taps.teacher.kind, taps.teacher.channels
        self.space = FeatureSpace(channels, method.feature_norm)
        chain = method.start_step, method.sample_steps
        trans = Projection(taps.student, taps.teacher, norm=False, channels=method.ae_channels)
        self.feature_branch = DiffusionBranch(trans, kind, channels, method.ae_channels, *chain)
        self.logit_branch = None
        if method.denoised_logit_weight > 0:
            classes = int(student.num_classes)  # type: ignore[arg-type]
            self.logit_branch = DiffusionBranch(nn.Linear(classes, classes), "vector", classes, None, *chain)

    def forward(self, images_BCHW: Tensor, target: Tensor, teacher: TeacherOutput, context: StepContext) -> Losses:
        """Compute the losses of a batch."""
        method, noise = self.method, context.noise()
        logits_BK, feat = read_student(self.student, self.tap, images_BCHW)
        refined = self.feature_branch(feat, self.space.standardise(teacher.tapped), noise)
        diffusion, monitors = refined.diffusion, {"feature_share": refined.gamma_B.mean()}
        distillation = {"feature": method.feature_weight * F.mse_loss(refined.feat, refined.target)}
        if self.logit_branch is not None:
            denoised = self.logit_branch(logits_BK, teacher.logits_BK, noise)
            diffusion = diffusion + denoised.diffusion
            divergence = kd_loss(denoised.feat, denoised.target, temperature=1.0)
            distillation["denoised_logit"] = method.denoised_logit_weight * divergence
        distillation |= logit_terms(method, logits_BK, teacher.logits_BK, target)
        weight = ramp(context.progress, method.ramp_fraction)
        terms = {
            "ce": method.ce_weight * self.cross_entropy(logits_BK, target),
            "diffusion": method.diffusion_weight * diffusion,
            **{name: weight * term for name, term in distillation.items()},
        }
        if refined.reconstruction is not None:
            terms["reconstruction"] = method.reconstruction_weight * refined.reconstruction
        return Losses(logits_BK, terms, monitors | monitor_agreement(logits_BK, teacher))

    def fit(self, feats: Iterable[Tensor]) -> None:
        """Set m and sigma from the teacher's features of some training images."""
        self.space.fit(feats)
