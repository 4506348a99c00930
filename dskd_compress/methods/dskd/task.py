"""DSKD on one page: project, denoise under the teacher's guidance, hash, anchor.

    F_s, logits_s = student(x)          F_t, logits_t = teacher(x)
    u   = P(F_s)                        z_T = (F_t - m) / sigma        standardised teacher space
    (1) L_diff = || eps_theta(z_T noised to t, t) - eps ||^2           trains the denoiser alone
    (2) v   = DDIM(u, from t0, guided by the teacher's head towards q) the virtual teacher, no gradient
    (3) L_lsh  = LSH(u -> (1 - mix) v + mix z_T)                       trains P and the student
    (4) L_head = KL(softmax(logits_t) || softmax(c_T(sigma u + m)))    the anchor: trains P and the student
    L = CE + ramp (beta L_lsh + lambda_head L_head + lambda_logit KD) + lambda_diff L_diff

Without (4) nothing ties u to the teacher's space: P is free, v follows wherever u goes, and the student
learns nothing beyond the labels. The anchor aligns no features; it asks that the teacher's own
classifier, which guides the denoising, can read them.

The student's own head keeps reading F_s, so the deployed student is the plain timm model.

Shape suffixes: B images, C channels of the teacher's tap, K classes, M hash bits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dskd_compress.config import DskdMethod
from dskd_compress.config.dskd import Schedule
from dskd_compress.methods.base import Losses, TeacherOutput, ramp
from dskd_compress.methods.diffusion.denoiser import make_denoiser, predict_noise
from dskd_compress.methods.diffusion.schedule import (
    add_noise,
    ddim_sample,
    diffusion_loss,
    linear_alphas_cumprod,
    sampling_steps,
)
from dskd_compress.methods.draws import mean_over_processes, not_compiled
from dskd_compress.methods.dskd.guidance import Guide, TeacherHead, guide_target
from dskd_compress.methods.features import Projection, pool
from dskd_compress.methods.kd import kd_loss
from dskd_compress.methods.logit import logit_terms
from dskd_compress.methods.lsh import LshModule, bit_entropy, hash_logits
from dskd_compress.taps import Tap, TapHead


def at_scale_of(reference: Tensor, feat: Tensor) -> Tensor:
    """Bring a batch of features to the rms of others, both pooled; the factor is a constant to autograd.

    The denoiser knows features of the teacher's size only and makes larger ones larger still. Where the
    target follows the student's size and the student follows the target, both grow without bound: on a
    map tap of 2x2 the student's features reached five times the teacher's within 2,000 steps, and the
    teacher's classifier was right on a third of the denoised ones.
    """
    squares = torch.stack([pool(tensor.detach()).square().mean() for tensor in (reference, feat)])
    wanted, own = mean_over_processes(squares).sqrt()
    scaled: Tensor = feat * (wanted / own.clamp(min=1e-6))
    return scaled


def scheduled(schedule: Schedule, progress: float) -> float:
    """Factor of a weight at a share of the training, 0 to 1."""
    return {"constant": 1.0, "linear_decay": 1.0 - progress, "linear_growth": progress}[schedule]


class DskdModule(LshModule):
    """Student, projection P and denoiser eps_theta; the constants m, sigma, W and b as buffers."""

    alphas_cumprod: Tensor
    head_terms = frozenset({"diffusion"})  # its features are detached: it trains the denoiser alone

    def __init__(
        self,
        student: nn.Module,
        student_tap: Tap,
        teacher_tap: Tap,
        teacher_head: TapHead,
        method: DskdMethod,
        label_smoothing: float,
        seed: int,
    ) -> None:
        super().__init__(student, label_smoothing, student_tap, teacher_tap.channels, teacher_head, method, seed)
        self.method = method
        self.projection = Projection(student_tap, teacher_tap)
        self.denoiser = make_denoiser(
            teacher_tap.kind,
            teacher_tap.channels,
            width=method.denoiser_width,
            max_hidden=method.denoiser_max_hidden,
            norm=method.denoiser_norm,
            skip=method.denoiser_skip,
        )
        self.register_buffer("alphas_cumprod", linear_alphas_cumprod(), persistent=False)
        self.abar: list[float] = linear_alphas_cumprod().tolist()  # the sampler needs plain numbers
        self.steps = sampling_steps(method.start_step, method.sample_steps)
        self.teacher_head = teacher_head  # the teacher's: not ours to train, copy or save

    def forward(
        self, images_BCHW: Tensor, target: Tensor, teacher: TeacherOutput | None, progress: float
    ) -> Losses:
        """Losses of a batch."""
        assert teacher is not None
        assert teacher.feat is not None
        method = self.method
        logits_BK, feat = self.read(images_BCHW)
        u = self.projection(feat)

        with torch.autocast(images_BCHW.device.type, enabled=False):
            z_teacher = self.standardise(teacher.feat)
            head = TeacherHead(self.teacher_head, self.mean_C, self.std_C, teacher.prefix_BPC)
            head_logits_BK = head.logits(u)
        diffusion = diffusion_loss(
            self.denoiser, self.denoiser_data(u, z_teacher), self.alphas_cumprod, self.draws
        )
        q_BK = guide_target(method.guide_target, teacher.logits_BK, target, method.guide_temperature)
        noisy = at_scale_of(z_teacher, u) if method.start_scale == "teacher" else u
        v = self.denoise(noisy, head, q_BK, progress)

        with torch.autocast(images_BCHW.device.type, enabled=False):
            towards = v.lerp(z_teacher, method.target_mix)
            share = ramp(progress, method.ramp_fraction)
            distillation = {
                "lsh": method.lsh_weight * self.distil_loss(u, towards, teacher.logits_BK, target),
                **logit_terms(method, logits_BK, teacher.logits_BK, target),
            }
            if method.head_weight > 0:
                weight = method.head_weight * scheduled(method.head_schedule, progress)
                distillation["head"] = weight * kd_loss(head_logits_BK, teacher.logits_BK, 1.0)
            terms = {
                "ce": method.ce_weight * self.cross_entropy(logits_BK, target),
                "diffusion": method.diffusion_weight * diffusion,
                **{name: share * term for name, term in distillation.items()},
            }
            monitors = self.monitors(u, v, z_teacher, head, head_logits_BK, teacher) if self.watching else {}
            return Losses(logits_BK, terms, monitors)

    def denoiser_data(self, u: Tensor, z_teacher: Tensor) -> Tensor:
        """(1) The clean features that the denoiser learns."""
        kind = self.method.denoiser_data
        return torch.cat((z_teacher, u)) if kind == "both" else z_teacher if kind == "teacher" else u

    @not_compiled  # it asks autograd for the gradient of the head
    def denoise(self, u: Tensor, head: TeacherHead, target_BK: Tensor, progress: float) -> Tensor:
        """(2) The virtual teacher: u taken as a noisy sample at t0 and led to the clean end.

        No gradient flows unless `detach_target` is off (which trains student, P and denoiser through
        the whole chain, as DiffKD does).
        """
        method = self.method
        scale = method.guide_scale * scheduled(method.guide_schedule, progress)
        guide = Guide(head, target_BK, scale, method.guide_on, method.guide_spatial, method.guide_clip)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not method.detach_target):
            clean = [
                ddim_sample(
                    self.chain_start(u.detach() if method.detach_target else u),
                    lambda z, step: predict_noise(self.denoiser, z, step),
                    guide if scale > 0 else None,
                    self.abar,
                    self.steps,
                )
                for _ in range(method.draws)
            ]
            return clean[0] if len(clean) == 1 else torch.stack(clean).mean(dim=0)

    def chain_start(self, u: Tensor) -> Tensor:
        """u as a sample at t0."""
        if self.method.start == "raw":
            return u
        abar = self.abar[self.steps[0]]
        noise = torch.zeros_like(u) if self.method.start == "scaled" else self.draws.randn_like(u)
        return add_noise(u, noise, abar)

    @torch.no_grad()
    def monitors(
        self,
        u: Tensor,
        v: Tensor,
        z_teacher: Tensor,
        head: TeacherHead,
        head_logits_BK: Tensor,
        teacher: TeacherOutput,
    ) -> dict[str, Tensor]:
        """Is it alive?

        Shares in [0, 1], except: spreads (1 is the teacher's), the size of the hash logits, the entropy of a
        hash bit over the batch (in bits), and the head's mean log p(q) in nats, with q what the teacher says.
        """
        teacher_B, q_BK = teacher.logits_BK.argmax(dim=1), teacher.logits_BK.softmax(dim=1)
        u_BC, v_BC, z_BC = pool(u), pool(v), pool(z_teacher)
        hashed_u, hashed_v, hashed_z = (
            hash_logits(feat_BC, self.planes_MC, self.bias_M) for feat_BC in (u_BC, v_BC, z_BC)
        )
        denoised_logits_BK = head.logits(v)
        spread = z_BC.std(dim=0).mean().clamp(min=1e-6)
        return {
            "head_agrees_on_projected": (head_logits_BK.argmax(dim=1) == teacher_B).float().mean(),
            "head_agrees_on_denoised": (denoised_logits_BK.argmax(dim=1) == teacher_B).float().mean(),
            "head_likelihood_projected": -F.cross_entropy(head_logits_BK, q_BK),
            "head_likelihood_denoised": -F.cross_entropy(denoised_logits_BK, q_BK),
            "hash_agreement": ((hashed_u > 0) == (hashed_z > 0)).float().mean(),
            "hash_agreement_denoised": ((hashed_v > 0) == (hashed_z > 0)).float().mean(),
            "hash_bit_entropy_denoised": bit_entropy(hashed_v),
            "hash_logit_size": hashed_u.abs().mean(),
            "projected_spread": u_BC.std(dim=0).mean() / spread,
            "denoised_spread": v_BC.std(dim=0).mean() / spread,
        }
