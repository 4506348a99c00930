"""The sampler against diffusers' DDIMScheduler, an independent implementation."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

from dskd_compress.methods.diffusion.schedule import (
    add_noise,
    clean_estimate,
    ddim_sample,
    linear_alphas_cumprod,
    sampling_steps,
)


@pytest.fixture
def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type="epsilon",
    )


def test_alphas_equal_diffusers(scheduler: DDIMScheduler) -> None:
    torch.testing.assert_close(linear_alphas_cumprod(), scheduler.alphas_cumprod, rtol=1e-5, atol=0)


def test_alphas_are_the_published_ones() -> None:
    abar = linear_alphas_cumprod()
    assert abar[[400, 300, 200, 100]].tolist() == pytest.approx([0.1936, 0.394, 0.656, 0.895], abs=1e-3)


@pytest.mark.parametrize(
    ("start", "count", "steps"),
    [(400, 5, [400, 300, 200, 100, 0]), (200, 3, [200, 100, 0]), (400, 1, [400]), (10, 2, [10, 0])],
)
def test_sampling_steps(start: int, count: int, steps: list[int]) -> None:
    assert sampling_steps(start, count) == steps


def test_add_noise_equals_diffusers(scheduler: DDIMScheduler) -> None:
    clean, noise = torch.randn(6, 5), torch.randn(6, 5)
    steps = torch.tensor([0, 1, 100, 400, 700, 999])
    abar = linear_alphas_cumprod()[steps][:, None]
    torch.testing.assert_close(add_noise(clean, noise, abar), scheduler.add_noise(clean, noise, steps))


def test_clean_estimate_undoes_add_noise() -> None:
    clean, noise = torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2)
    noisy = add_noise(clean, noise, 0.3)
    torch.testing.assert_close(clean_estimate(noisy, noise, 0.3), clean)


@pytest.mark.parametrize("shape", [(4, 7), (2, 5, 3, 3)])
def test_chain_equals_diffusers(scheduler: DDIMScheduler, shape: tuple[int, ...]) -> None:
    """Five steps from 400, the noise predicted by a fixed non-linear function of sample and step."""

    def predict(z: torch.Tensor, step: int) -> torch.Tensor:
        return torch.tanh(z * 1.3 + step / 500)

    start = torch.randn(shape)
    ours = ddim_sample(start, predict, None, linear_alphas_cumprod().tolist(), sampling_steps(400, 5))
    scheduler.set_timesteps(10)  # spacing 100; the steps 900 to 500 are left out
    theirs = start
    for step in scheduler.timesteps[5:].tolist():
        theirs = scheduler.step(predict(theirs, step), step, theirs, eta=0.0).prev_sample
    assert scheduler.timesteps[5:].tolist() == [400, 300, 200, 100, 0]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_true_noise_leads_home() -> None:
    """With the noise that was really added, every step lands on the clean sample."""
    clean, noise = torch.randn(3, 8), torch.randn(3, 8)
    abar = linear_alphas_cumprod()
    start = add_noise(clean, noise, float(abar[400]))
    end = ddim_sample(start, lambda z, step: noise, None, abar.tolist(), sampling_steps(400, 5))
    torch.testing.assert_close(end, clean, rtol=1e-4, atol=1e-5)


def test_guide_is_subtracted_from_the_noise() -> None:
    start, push = torch.randn(2, 4), torch.full((2, 4), 0.1)
    abar = linear_alphas_cumprod().tolist()
    guided = ddim_sample(start, lambda z, step: torch.zeros_like(z), lambda z, e, a: push, abar, [400])
    plain = ddim_sample(start, lambda z, step: -push, None, abar, [400])
    torch.testing.assert_close(guided, plain)
