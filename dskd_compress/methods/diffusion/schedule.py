"""The noise schedule and the deterministic DDIM sampler.

abar_t is the share of signal power left at step t of T = 1000, for betas that rise linearly
from 1e-4 to 0.02 (DDPM, arXiv 2006.11239, section 4). Sampling is DDIM with eta = 0
(arXiv 2010.02502, equation 12).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dskd_compress.methods.noise import StepNoise

TRAIN_STEPS = 1000

Guide = Callable[[Tensor, Tensor, float], Tensor]
"""(z_t, eps, abar_t) -> what to subtract from eps."""


def linear_alphas_cumprod() -> Tensor:
    """abar_t = prod_{s <= t} (1 - beta_s), fp32, shape [T], falling from near 1 to near 0."""
    betas = torch.linspace(1e-4, 0.02, TRAIN_STEPS, dtype=torch.float64)
    return torch.cumprod(1.0 - betas, dim=0).float()


def sampling_steps(start: int, count: int) -> list[int]:
    """Evenly spaced steps from `start` down to 0: 400 and 5 give 400, 300, 200, 100, 0.

    Args:
        start: 1 to 999.
        count: 1 or more; 1 gives `[start]`, a single jump to the clean end.
    """
    if count == 1:
        return [start]
    return [round(start * (count - 1 - index) / (count - 1)) for index in range(count)]


def add_noise(clean: Tensor, noise: Tensor, abar: Tensor | float) -> Tensor:
    """x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps; `abar` is a number or broadcasts over `clean`."""
    abar = torch.as_tensor(abar, dtype=clean.dtype, device=clean.device)
    x_t: Tensor = abar.sqrt() * clean + (1 - abar).sqrt() * noise
    return x_t


def clean_estimate(noisy: Tensor, noise: Tensor, abar: float) -> Tensor:
    """x0_hat = (x_t - sqrt(1 - abar) eps) / sqrt(abar)."""
    clean: Tensor = (noisy - (1 - abar) ** 0.5 * noise) / abar**0.5
    return clean


def ddim_sample(
    start: Tensor,
    predict_noise: Callable[[Tensor, int], Tensor],
    guide: Guide | None,
    alphas_cumprod: Sequence[float],
    steps: Sequence[int],
) -> Tensor:
    """Run the chain z_t -> z_0, eta = 0.

    Args:
        start: the noisy sample at `steps[0]`, any shape with the batch first.
        predict_noise: (z_t, t) -> eps, the denoiser.
        guide: (z_t, eps, abar_t) -> what to subtract from eps, in place of
            s * sqrt(1 - abar_t) * grad log p(y | z_t) (arXiv 2105.05233, algorithm 2); None is plain DDIM.
        alphas_cumprod: abar of each of the T steps, plain numbers so that no device is waited for.
        steps: falling; after the last one abar is 1, which is the clean end.
    """
    z = start
    for index, step in enumerate(steps):
        abar = alphas_cumprod[step]
        abar_next = alphas_cumprod[steps[index + 1]] if index + 1 < len(steps) else 1.0
        noise = predict_noise(z, step)
        if guide is not None:
            noise = noise - guide(z, noise, abar)
        z = abar_next**0.5 * clean_estimate(z, noise, abar) + (1 - abar_next) ** 0.5 * noise
    return z


def predict_noise(denoiser: nn.Module, noisy: Tensor, step: int) -> Tensor:
    """Call the denoiser at the same step for the whole batch, in fp32 out."""
    steps_B = torch.full((noisy.shape[0],), step, dtype=torch.long, device=noisy.device)
    out: Tensor = denoiser(noisy, steps_B)
    return out.float()


class Diffusion(nn.Module):
    """The noise schedule, the loss of a denoiser, and the sampler from t0.

    Args:
        start_step: t0.
        sample_steps: denoiser calls of a sample.
    """

    alphas_cumprod: Tensor

    def __init__(self, start_step: int, sample_steps: int) -> None:
        super().__init__()
        self.register_buffer("alphas_cumprod", linear_alphas_cumprod(), persistent=False)
        self.abar: list[float] = linear_alphas_cumprod().tolist()  # plain numbers: the sampler waits for no device
        self.steps = sampling_steps(start_step, sample_steps)

    def loss(self, denoiser: nn.Module, clean: Tensor, noise: StepNoise) -> Tensor:
        """mean || eps_theta(sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps, t) - eps ||^2, t uniform (DDPM, equation 14).

        z_0 is always detached: features that could move would become easy to denoise instead of useful.

        Args:
            denoiser: (noisy, steps [B]) -> noise.
            clean: z_0, any shape with the batch first.
        """
        clean = clean.detach()
        step_B = noise.randint(TRAIN_STEPS, like=clean)
        eps = noise.randn_like(clean)
        abar = self.alphas_cumprod[step_B].view(-1, *[1] * (clean.ndim - 1))
        return F.mse_loss(denoiser(add_noise(clean, eps, abar), step_B).float(), eps)

    def sample(self, denoiser: nn.Module, start: Tensor, guide: Guide | None = None) -> Tensor:
        """Denoise a sample at t0 to the clean end; see `ddim_sample`."""
        return ddim_sample(start, lambda z, t: predict_noise(denoiser, z, t), guide, self.abar, self.steps)
