from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dskd_compress.methods.diffusion.denoiser import NormKind, SinusoidalTime, make_denoiser, make_time_embedding
from dskd_compress.methods.diffusion.schedule import add_noise, linear_alphas_cumprod, predict_noise


@pytest.mark.parametrize("norm", ["gn", "bn", "ln"])
@pytest.mark.parametrize("channels", [24, 48, 64, 96])
@pytest.mark.parametrize("kind", ["vector", "map"])
def test_keeps_the_shape_and_uses_every_parameter(kind: str, channels: int, norm: NormKind) -> None:
    denoiser = make_denoiser(kind, channels, width=2.0, max_hidden=128, norm=norm, skip=True)  # type: ignore[arg-type]
    feat = torch.randn(4, channels) if kind == "vector" else torch.randn(4, channels, 3, 2)
    out = denoiser(feat, torch.tensor([0, 10, 500, 999]))
    assert out.shape == feat.shape
    out.square().mean().backward()
    assert [name for name, parameter in denoiser.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("kind", ["vector", "map"])
def test_a_single_image_works_with_group_norm(kind: str) -> None:
    denoiser = make_denoiser(kind, 32, width=1.0, max_hidden=512, norm="gn", skip=True)  # type: ignore[arg-type]
    feat = torch.randn(1, 32) if kind == "vector" else torch.randn(1, 32, 1, 1)
    assert torch.isfinite(predict_noise(denoiser, feat, 400)).all()


def test_depends_on_the_step() -> None:
    denoiser = make_denoiser("vector", 32, width=1.0, max_hidden=512, norm="gn", skip=True)
    feat = torch.randn(2, 32)
    assert not torch.allclose(predict_noise(denoiser, feat, 10), predict_noise(denoiser, feat, 900))


def train(skip: bool) -> float:
    torch.manual_seed(0)
    denoiser = make_denoiser("vector", 32, width=2.0, max_hidden=512, norm="gn", skip=skip)
    optimizer = torch.optim.SGD(denoiser.parameters(), lr=0.05, momentum=0.9)
    abar = linear_alphas_cumprod()
    centres = torch.randn(5, 32)
    losses = []
    for _ in range(150):
        clean = F.normalize(centres[torch.randint(5, (64,))] + 0.1 * torch.randn(64, 32)) * 32**0.5
        step, noise = torch.randint(1000, (64,)), torch.randn(64, 32)
        loss = F.mse_loss(denoiser(add_noise(clean, noise, abar[step][:, None]), step), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return sum(losses[-20:]) / 20


def test_the_skip_lets_it_learn() -> None:
    """Predicting nothing gives 1. The skip is what makes a short training worth its name."""
    with_skip, without = train(skip=True), train(skip=False)
    assert with_skip < 0.35
    assert with_skip < 0.7 * without


@pytest.mark.parametrize("kind", ["vector", "map"])
def test_the_width_is_limited(kind: str) -> None:
    """A teacher of 2048 channels: four 2048x512 layers, or two bottlenecks of 128 and a last one of that rank."""
    denoiser = make_denoiser(kind, 2048, width=2.0, max_hidden=512, norm="gn", skip=True)  # type: ignore[arg-type]
    weights = sum(parameter.numel() for parameter in denoiser.body.parameters() if parameter.ndim > 1)
    if kind == "vector":
        assert weights == 4 * 2048 * 512
    else:
        assert weights == 2 * (2 * 2048 * 128 + 9 * 128**2) + 2 * 2048 * 128


def test_the_limit_leaves_narrow_maps_alone() -> None:
    """As DiffKD has it up to 512 channels: two bottlenecks of a quarter, and a full 1x1 convolution."""
    denoiser = make_denoiser("map", 512, width=2.0, max_hidden=512, norm="gn", skip=True)
    weights = sum(parameter.numel() for parameter in denoiser.body.parameters() if parameter.ndim > 1)
    assert weights == 2 * (2 * 512 * 128 + 9 * 128**2) + 512**2


def test_steps_are_told_by_waves() -> None:
    """Sines and cosines of falling frequency, mixed; small beside a feature of unit variance."""
    torch.manual_seed(0)
    time = SinusoidalTime(256)
    step = torch.tensor([0, 7, 999])
    angles = np.array([0, 7, 999])[:, None] / 10_000 ** (np.arange(32) / 32)
    waves = torch.tensor(np.concatenate([np.sin(angles), np.cos(angles)], axis=1), dtype=torch.float32)
    torch.testing.assert_close(time(step), waves @ time.mix.weight.T + time.mix.bias, rtol=1e-3, atol=1e-5)
    assert float(time(torch.arange(1000)).std().detach()) == pytest.approx(0.02, rel=0.1)


def test_a_table_of_steps_is_diffkds() -> None:
    time = make_time_embedding("table", 64)
    assert isinstance(time, torch.nn.Embedding)
    assert float(time.weight.std().detach()) == pytest.approx(1.0, rel=0.02)
