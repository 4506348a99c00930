"""DSKD on one page: project, denoise under the teacher's guidance, hash, anchor.

    F_s, logits_s = student(x)          F_t, logits_t = teacher(x)
    u   = P(F_s)                        z_T = (F_t - m) / sigma        standardised teacher space
    (1) L_diff = || eps_theta(z_T noised to t, t) - eps ||^2           trains the denoiser alone
    (2) v   = DDIM(u, from t0, guided by the teacher's head towards q) the virtual teacher, no gradient
    (3) L_lsh  = LSH(u -> v)                                           trains P and the student
    (4) L_head = KL(softmax(logits_t) || softmax(c_T(sigma u + m)))    the anchor: trains P and the student
    L = CE + ramp (beta L_lsh + lambda_head L_head + lambda_kd KD) + lambda_diff L_diff

Without (4) nothing ties u to the teacher's space: P is free, v follows wherever u goes, and the student
learns nothing beyond the labels. The anchor aligns no features; it asks that the teacher's own
classifier, which guides the denoising, can read them.

The student's own head keeps reading F_s, so the deployed student is the plain timm model.

Shape suffixes: B images, C channels of the teacher's tap, K classes, M hash bits.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dskd_compress.config import DskdMethod
from dskd_compress.methods.base import Losses, MethodTask, StudentModule, TeacherOutput
from dskd_compress.methods.dskd.denoiser import make_denoiser, predict_noise
from dskd_compress.methods.dskd.guidance import Guide, TeacherHead, channels_like, guide_target
from dskd_compress.methods.dskd.lsh import (
    bit_entropy,
    default_hash_bits,
    hash_agreement,
    hash_logits,
    hash_planes,
    lsh_loss,
)
from dskd_compress.methods.dskd.schedule import (
    TRAIN_STEPS,
    add_noise,
    ddim_sample,
    linear_alphas_cumprod,
    sampling_steps,
)
from dskd_compress.methods.kd import kd_loss
from dskd_compress.taps import Tap, TapHead
from dskd_export.errors import TapError


def pool(feat: Tensor) -> Tensor:
    """BxCxHxW -> BxC by the mean; BxC stays."""
    return feat if feat.ndim == 2 else feat.mean(dim=(2, 3))


def by_location(feat: Tensor) -> Tensor:
    """BxCxHxW -> (B H W)xC; BxC stays."""
    return feat if feat.ndim == 2 else feat.permute(0, 2, 3, 1).flatten(0, 2)


def at_scale_of(reference: Tensor, feat: Tensor) -> Tensor:
    """Bring a batch of features to the rms of others, both pooled; the factor is a constant to autograd.

    The denoiser knows features of the teacher's size only and makes larger ones larger still. Where the
    target follows the student's size and the student follows the target, both grow without bound: on a
    map tap of 2x2 the student's features reached five times the teacher's within 2,000 steps, and the
    teacher's classifier was right on a third of the denoised ones.
    """
    wanted, own = (pool(tensor.detach()).square().mean().sqrt() for tensor in (reference, feat))
    return feat * (wanted / own.clamp(min=1e-6))


class Projection(nn.Module):
    """P: the student's tap -> the teacher's channels and, for a map, its grid."""

    def __init__(self, student: Tap, teacher: Tap) -> None:
        super().__init__()
        self.grid = teacher.grid
        if teacher.kind == "map":
            self.body = nn.Sequential(
                nn.Conv2d(student.channels, teacher.channels, 1, bias=False), nn.BatchNorm2d(teacher.channels)
            )
        else:
            self.body = nn.Sequential(nn.Linear(student.channels, teacher.channels))

    def forward(self, feat: Tensor) -> Tensor:
        """BxC_s or BxC_sxHxW -> BxC or BxCxH'xW', fp32."""
        out: Tensor = self.body(feat).float()
        if self.grid is not None and tuple(out.shape[2:]) != self.grid:
            out = F.interpolate(out, self.grid, mode="bilinear", align_corners=False, antialias=True)
        return out


class DskdModule(StudentModule):
    """Student, projection P and denoiser eps_theta; the constants m, sigma, W and b as buffers."""

    mean_C: Tensor
    std_C: Tensor
    planes_MC: Tensor
    bias_M: Tensor
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
        super().__init__(student, label_smoothing)
        self.method = method
        self.student_tap = student_tap
        channels = teacher_tap.channels
        self.projection = Projection(student_tap, teacher_tap)
        self.denoiser = make_denoiser(
            teacher_tap.kind,
            channels,
            width=method.denoiser_width,
            max_hidden=method.denoiser_max_hidden,
            norm=method.denoiser_norm,
            skip=method.denoiser_skip,
        )
        self.register_buffer("mean_C", torch.zeros(channels))
        self.register_buffer("std_C", torch.ones(channels))
        bits = method.hash_bits or default_hash_bits(channels)
        std = channels**-0.5
        if method.hash_std == "fc":
            if teacher_head.linear is None:
                raise TapError(
                    "method.hash_std: fc needs a teacher whose classifier is one linear layer.",
                    "Use method.hash_std: auto",
                )
            std = float(teacher_head.linear.weight.detach().std())
        self.register_buffer("planes_MC", hash_planes(channels, bits, std, seed))
        self.register_buffer("bias_M", torch.zeros(bits))
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
        features = self.student.forward_features(images_BCHW)  # type: ignore[operator]
        logits_BK = self.student.forward_head(features)  # type: ignore[operator]
        u = self.projection(self.student_tap.read(self.student, features)[0])

        with torch.autocast(images_BCHW.device.type, enabled=False):
            z_teacher = (teacher.feat - channels_like(self.mean_C, u)) / channels_like(self.std_C, u)
            head = TeacherHead(self.teacher_head, self.mean_C, self.std_C, teacher.prefix_BPC)
            head_logits_BK = head.logits(u)
        diffusion = self.diffusion_loss(u, z_teacher)
        q_BK = guide_target(method.guide_target, teacher.logits_BK, target, method.guide_temperature)
        noisy = at_scale_of(z_teacher, u) if method.start_scale == "teacher" else u
        v = self.denoise(noisy, head, q_BK)

        with torch.autocast(images_BCHW.device.type, enabled=False):
            ramp = min(1.0, progress / method.ramp_fraction) if method.ramp_fraction > 0 else 1.0
            terms = {
                "ce": method.ce_weight * self.cross_entropy(logits_BK, target),
                "diffusion": method.diffusion_weight * diffusion,
                "lsh": ramp * method.lsh_weight * self.distil_loss(u, v, teacher.logits_BK, target),
            }
            if method.head_weight > 0:
                terms["head"] = ramp * method.head_weight * kd_loss(head_logits_BK, teacher.logits_BK, 1.0)
            if method.kd_weight > 0:
                terms["kd"] = ramp * method.kd_weight * kd_loss(logits_BK, teacher.logits_BK, method.temperature)
            return Losses(logits_BK, terms, self.monitors(u, v, z_teacher, head, head_logits_BK, teacher))

    def diffusion_loss(self, u: Tensor, z_teacher: Tensor) -> Tensor:
        """(1) mean || eps_theta(sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps, t) - eps ||^2, t uniform.

        z_0 is always detached: features that could move would become easy to denoise instead of useful.
        """
        clean = {
            "teacher": lambda: z_teacher,
            "student": lambda: u,
            "both": lambda: torch.cat((z_teacher, u)),
        }[self.method.denoiser_data]().detach()
        step_B = torch.randint(TRAIN_STEPS, (clean.shape[0],), device=clean.device)
        noise = torch.randn_like(clean)
        abar = self.alphas_cumprod[step_B].view(-1, *[1] * (clean.ndim - 1))
        predicted = self.denoiser(add_noise(clean, noise, abar), step_B)
        return F.mse_loss(predicted.float(), noise)

    def denoise(self, u: Tensor, head: TeacherHead, target_BK: Tensor) -> Tensor:
        """(2) The virtual teacher: u taken as a noisy sample at t0 and led to the clean end.

        No gradient flows unless `detach_target` is off (which trains student, P and denoiser through
        the whole chain, as DiffKD does).
        """
        method = self.method
        guide = Guide(
            head, target_BK, method.guide_scale, method.guide_on, method.guide_spatial, method.guide_clip
        )
        with torch.set_grad_enabled(torch.is_grad_enabled() and not method.detach_target):
            start = u.detach() if method.detach_target else u
            abar = self.abar[self.steps[0]]
            if method.start == "scaled":
                start = abar**0.5 * start
            elif method.start == "sdedit":
                start = add_noise(start, torch.randn_like(start), abar)
            return ddim_sample(
                start,
                lambda z, step: predict_noise(self.denoiser, z, step),
                guide if method.guide_scale > 0 else None,
                self.abar,
                self.steps,
            )

    def distil_loss(self, u: Tensor, v: Tensor, teacher_BK: Tensor, target: Tensor) -> Tensor:
        """(3) The hash loss from the student's feature to the denoised one, mean over images."""
        method = self.method
        arrange = pool if method.lsh_on == "pooled" else by_location
        loss = lsh_loss(arrange(u), arrange(v), self.planes_MC, self.bias_M, method.lsh_loss)
        loss_B = loss.view(u.shape[0], -1).mean(dim=1)
        if not method.correct_only:
            return loss_B.mean()
        labels_B = target if target.ndim == 1 else target.argmax(dim=1)
        right_B = (teacher_BK.argmax(dim=1) == labels_B).float()
        return (loss_B * right_B).sum() / right_B.sum().clamp(min=1)

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
        hashed_BM = hash_logits(u_BC, self.planes_MC, self.bias_M)
        denoised_logits_BK = head.logits(v)
        spread = z_BC.std(dim=0).mean().clamp(min=1e-6)
        return {
            "head_agrees_on_projected": (head_logits_BK.argmax(dim=1) == teacher_B).float().mean(),
            "head_agrees_on_denoised": (denoised_logits_BK.argmax(dim=1) == teacher_B).float().mean(),
            "head_likelihood_projected": -F.cross_entropy(head_logits_BK, q_BK),
            "head_likelihood_denoised": -F.cross_entropy(denoised_logits_BK, q_BK),
            "hash_agreement": hash_agreement(u_BC, z_BC, self.planes_MC, self.bias_M),
            "hash_agreement_denoised": hash_agreement(v_BC, z_BC, self.planes_MC, self.bias_M),
            "hash_bit_entropy_denoised": bit_entropy(hash_logits(v_BC, self.planes_MC, self.bias_M)),
            "hash_logit_size": hashed_BM.abs().mean(),
            "projected_spread": u_BC.std(dim=0).mean() / spread,
            "denoised_spread": v_BC.std(dim=0).mean() / spread,
        }


class DskdTask(MethodTask):
    """DSKD as a timm training task."""

    @property
    def taps(self) -> dict[str, Tap]:
        """Where both models are read."""
        module = self.module
        assert isinstance(module, DskdModule)
        assert self.teacher is not None
        assert self.teacher.tap is not None
        return {"teacher": self.teacher.tap, "student": module.student_tap}

    @torch.no_grad()
    def fit_statistics(self, batches: Iterable[Tensor]) -> None:
        """m, sigma and, where asked for, b: from the teacher's features on some training images."""
        module = self.module
        assert isinstance(module, DskdModule)
        assert self.teacher is not None
        count, sum_C, squares_C, pooled = 0, torch.zeros(()), torch.zeros(()), []
        for images_BCHW in batches:
            feat = self.teacher(images_BCHW).feat
            pixels_NC = by_location(feat).double()
            count += pixels_NC.shape[0]
            sum_C, squares_C = (
                sum_C.to(feat.device) + pixels_NC.sum(0),
                squares_C.to(feat.device) + pixels_NC.square().sum(0),
            )
            if module.method.hash_bias == "median":
                pooled.append(pool(feat))
        if module.method.feature_norm == "teacher_stats":
            mean_C = sum_C / count
            std_C = (squares_C / count - mean_C.square()).clamp(min=0).sqrt()
            # A channel that hardly ever fires would blow its noise up to the size of the others.
            std_C = std_C.clamp(min=float(1e-2 * std_C.median()) or 1.0)
            module.mean_C.copy_(mean_C)
            module.std_C.copy_(std_C)
        if module.method.hash_bias == "median":
            z_NC = (torch.cat(pooled) - module.mean_C) / module.std_C
            hashed_NM = hash_logits(z_NC, module.planes_MC, torch.zeros_like(module.bias_M))
            module.bias_M.copy_(-hashed_NM.median(dim=0).values)
