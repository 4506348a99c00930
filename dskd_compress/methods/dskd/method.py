"""DSKD on one page: project, denoise under the teacher's guidance, hash, anchor.

    F_s, logits_s = student(x)          F_T, logits_T = teacher(x)
    u   = P(F_s)                        z_T = (F_T - m) / sigma        standardised teacher space
    (1) L_diff = || eps_theta(z_T noised to t, t) - eps ||^2           trains the denoiser alone
    (2) v   = DDIM(u, from t0, guided by c_T towards q)                the virtual teacher, no gradient
    (3) L_lsh  = LSH(u -> (1 - mix) v + mix z_T)                       trains P and the student
    (4) L_head = KL(softmax(logits_T) || softmax(c_T(sigma u + m)))    the anchor: trains P and the student
    L = CE + ramp (beta L_lsh + lambda_head L_head + lambda_logit KD) + lambda_diff L_diff

The guidance of (2), with abar_t of the noise schedule and the scale s, is classifier guidance
(Dhariwal and Nichol, arXiv 2105.05233, algorithm 2) by c_T, the teacher's own head from the tap on:

    l(z) = sum_k q_k log softmax(c_T(sigma z + m))_k
    eps  = eps_theta(z_t, t) - s sqrt(1 - abar_t) grad l
    x_0  = (z_t - sqrt(1 - abar_t) eps) / sqrt(abar_t)
    z_t' = sqrt(abar_t') x_0 + sqrt(1 - abar_t') eps                   DDIM, eta = 0

Without (4) nothing ties u to the teacher's space: P is free, v follows wherever u goes, and the student
learns nothing beyond the labels. The anchor aligns no features. It requires only that the classifier that
guides the denoising can read them.

The student's own head keeps reading F_s, so the deployed student is the plain timm model.

Shape suffixes: B images, C channels of the teacher's tap, K classes. Features have the tap's shape: BxC or
BxCxHxW.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dskd_compress.config import DskdMethod
from dskd_compress.config.dskd import Schedule
from dskd_compress.methods.base import Losses, StepContext, StudentModule, TeacherOutput, ramp
from dskd_compress.methods.collectives import all_reduce_mean, not_compiled
from dskd_compress.methods.diffusion.denoiser import make_denoiser
from dskd_compress.methods.diffusion.schedule import Diffusion, add_noise
from dskd_compress.methods.dskd.guidance import Guide, TeacherHead, guide_target
from dskd_compress.methods.dskd.monitors import monitor
from dskd_compress.methods.features import FeatureSpace, Projection, pool, read_student
from dskd_compress.methods.kd import kd_loss
from dskd_compress.methods.logit import logit_terms
from dskd_compress.methods.lsh import HashLoss
from dskd_compress.methods.noise import StepNoise
from dskd_compress.methods.pairing import Taps


class DskdModule(StudentModule):
    """The student with P and eps_theta, which are trained, and the constants m, sigma, W and b.

    Attributes:
        space: m and sigma.
        hash_loss: L_LSH with W and b.
        projection: P.
        denoiser: eps_theta.
        diffusion: abar_t and the steps from t0.
        teacher_head: c_T; the teacher's, so neither trained nor copied nor saved here.
    """

    head_terms = frozenset({"diffusion"})  # its features are detached: it trains the denoiser alone

    def __init__(
        self, student: nn.Module, taps: Taps, method: DskdMethod, label_smoothing: float, seed: int
    ) -> None:
        super().__init__(student, label_smoothing)
        assert taps.head is not None
        self.method, self.tap, self.teacher_head = method, taps.student, taps.head
        channels = taps.teacher.channels
        self.space = FeatureSpace(channels, method.feature_norm)
        self.hash_loss = HashLoss(channels, taps.head, method, seed)
        self.projection = Projection(taps.student, taps.teacher)
        self.denoiser = make_denoiser(
            taps.teacher.kind,
            channels,
            width=method.denoiser_width,
            max_hidden=method.denoiser_max_hidden,
            norm=method.denoiser_norm,
            skip=method.denoiser_skip,
        )
        self.diffusion = Diffusion(method.start_step, method.sample_steps)

    def forward(self, images_BCHW: Tensor, target: Tensor, teacher: TeacherOutput, context: StepContext) -> Losses:
        """Compute the losses of a batch."""
        method, noise, progress = self.method, context.noise(), context.progress
        logits_s, F_s = read_student(self.student, self.tap, images_BCHW)
        logits_T, F_T = teacher.logits_BK, teacher.tapped
        u = self.projection(F_s)

        with torch.autocast(images_BCHW.device.type, enabled=False):
            z_T = self.space.standardise(F_T)
            c_T = TeacherHead(self.teacher_head, self.space.mean_C, self.space.std_C, teacher.prefix_BPC)
            logits_u = c_T.logits(u)
        L_diff = self.diffusion.loss(self.denoiser, self.clean_features(u, z_T), noise)  # (1)
        q = guide_target(method.guide_target, logits_T, target, method.guide_temperature)
        z_t0 = rescale_to(z_T, u) if method.start_scale == "teacher" else u
        v = self.denoise(z_t0, c_T, q, progress, noise)  # (2)

        with torch.autocast(images_BCHW.device.type, enabled=False):
            L_lsh = self.hash_loss(u, v.lerp(z_T, method.target_mix), logits_T, target)  # (3)
            distillation = {
                "lsh": method.lsh_weight * L_lsh,
                **logit_terms(method, logits_s, logits_T, target),
            }
            if method.head_weight > 0:
                lambda_head = method.head_weight * schedule_factor(method.head_schedule, progress)
                distillation["head"] = lambda_head * kd_loss(logits_u, logits_T, 1.0)  # (4)
            weight = ramp(progress, method.ramp_fraction)
            terms = {
                "ce": method.ce_weight * self.cross_entropy(logits_s, target),
                "diffusion": method.diffusion_weight * L_diff,
                **{name: weight * term for name, term in distillation.items()},
            }
            monitors = {}
            if context.wants_monitors:
                monitors = monitor(u, v, z_T, logits_u, c_T.logits(v), logits_T, self.hash_loss)
            return Losses(logits_s, terms, monitors)

    def clean_features(self, u: Tensor, z_T: Tensor) -> Tensor:
        """Choose z_0 of (1), the clean features that the denoiser learns."""
        kind = self.method.denoiser_data
        return torch.cat((z_T, u)) if kind == "both" else z_T if kind == "teacher" else u

    @not_compiled  # it asks autograd for the gradient of the head
    def denoise(self, u: Tensor, c_T: TeacherHead, q_BK: Tensor, progress: float, noise: StepNoise) -> Tensor:
        """Compute the virtual teacher of (2): take u as a noisy sample at t0 and denoise it.

        No gradient flows unless `detach_target` is off (which trains student, P and denoiser through
        the whole chain, as DiffKD does).
        """
        method = self.method
        s = method.guide_scale * schedule_factor(method.guide_schedule, progress)
        guide = Guide(c_T, q_BK, s, method.guide_on, method.guide_spatial, method.guide_clip) if s > 0 else None
        with torch.set_grad_enabled(torch.is_grad_enabled() and not method.detach_target):
            start = u.detach() if method.detach_target else u
            samples = [
                self.diffusion.sample(self.denoiser, self.start_chain(start, noise), guide)
                for _ in range(method.draws)
            ]
            return samples[0] if len(samples) == 1 else torch.stack(samples).mean(dim=0)

    def start_chain(self, u: Tensor, noise: StepNoise) -> Tensor:
        """Turn u into z_t0, the sample at t0."""
        if self.method.start == "raw":
            return u
        eps = torch.zeros_like(u) if self.method.start == "scaled" else noise.randn_like(u)
        return add_noise(u, eps, self.diffusion.abar[self.diffusion.steps[0]])

    def fit(self, feats: Iterable[Tensor]) -> None:
        """Set m, sigma and b from the teacher's features of some training images."""
        self.hash_loss.fit(feats, self.space)


def rescale_to(reference: Tensor, feat: Tensor) -> Tensor:
    """Scale a batch of features to the rms of others, both pooled; the factor is a constant to autograd.

    The denoiser has seen features of the teacher's size only and enlarges larger ones further. Where the
    target follows the student's size and the student follows the target, both grow without bound: on a
    map tap of 2x2 the student's features reached five times the teacher's within 2,000 steps, and the
    teacher's classifier was right on a third of the denoised ones.
    """
    squares = torch.stack([pool(tensor.detach()).square().mean() for tensor in (reference, feat)])
    wanted, own = all_reduce_mean(squares).sqrt()
    scaled: Tensor = feat * (wanted / own.clamp(min=1e-6))
    return scaled


def schedule_factor(schedule: Schedule, progress: float) -> float:
    """Compute the factor of a scheduled weight at `progress`, 0 to 1."""
    return {"constant": 1.0, "linear_decay": 1.0 - progress, "linear_growth": progress}[schedule]
