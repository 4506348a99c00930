"""The hash loss against a calculation in numpy, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis_support import examples
from scipy import stats

from dskd_compress.methods.lsh import bit_entropy, default_hash_bits, hash_agreement, hash_planes, lsh_loss


def numpy_lsh(u: np.ndarray, v: np.ndarray, planes: np.ndarray, bias: np.ndarray, kind: str) -> np.ndarray:
    losses = []
    for feature, target in zip(u, v, strict=True):
        squared = float(np.mean((feature - target) ** 2))
        crossed = []
        for normal, offset in zip(planes, bias, strict=True):
            logit = float(normal @ feature + offset)
            bit = float(normal @ target + offset > 0)
            probability = 1 / (1 + np.exp(-logit))
            crossed.append(-(bit * np.log(probability) + (1 - bit) * np.log(1 - probability)))
        hashed = float(np.mean(crossed))
        losses.append({"l2": squared, "lsh": hashed, "lshl2": squared + hashed}[kind])
    return np.array(losses)


@pytest.mark.parametrize("kind", ["lshl2", "lsh", "l2"])
@settings(max_examples=examples(25), deadline=None)
@given(batch=st.integers(1, 5), channels=st.integers(1, 12), bits=st.integers(1, 20), seed=st.integers(0, 999))
def test_equals_numpy(kind: str, batch: int, channels: int, bits: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    u, v = rng.normal(size=(batch, channels)), rng.normal(size=(batch, channels))
    planes, bias = rng.normal(size=(bits, channels)) * channels**-0.5, rng.normal(size=bits) * 0.1
    ours = lsh_loss(*(torch.tensor(array) for array in (u, v, planes, bias)), kind)  # type: ignore[arg-type]
    np.testing.assert_allclose(ours.numpy(), numpy_lsh(u, v, planes, bias, kind), rtol=1e-7)


def test_hash_logits_have_unit_variance_in_standardised_space() -> None:
    planes = hash_planes(256, 4096, 256**-0.5, seed=3)
    feat = torch.randn(512, 256, generator=torch.Generator().manual_seed(0))
    assert float((feat @ planes.T).std()) == pytest.approx(1.0, rel=0.02)


def test_planes_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = hash_planes(8, 16, 0.5, seed=7)
    torch.manual_seed(2)
    assert torch.equal(first, hash_planes(8, 16, 0.5, seed=7))
    assert not torch.equal(first, hash_planes(8, 16, 0.5, seed=8))


@pytest.mark.parametrize(("channels", "bits"), [(64, 2048), (128, 4096), (256, 8192), (512, 2048), (2048, 2048)])
def test_default_bits_are_lshfms(channels: int, bits: int) -> None:
    assert default_hash_bits(channels) == bits


def test_agreement_of_same_and_opposite_features() -> None:
    planes, bias = hash_planes(16, 512, 0.25, seed=0), torch.zeros(512)
    feat = torch.randn(4, 16)
    assert float(hash_agreement(feat, feat, planes, bias)) == 1.0
    assert float(hash_agreement(feat, -feat, planes, bias)) == 0.0


def test_no_gradient_through_the_bits() -> None:
    u, v = torch.randn(3, 5, requires_grad=True), torch.randn(3, 5, requires_grad=True)
    lsh_loss(u, v, hash_planes(5, 9, 0.4, 0), torch.zeros(9), "lsh").sum().backward()
    assert u.grad is not None
    assert float(u.grad.abs().sum()) > 0
    assert v.grad is None


def test_bit_entropy_is_that_of_scipy() -> None:
    hashed_BM = torch.randn(40, 16, generator=torch.Generator().manual_seed(0)) + torch.linspace(-2, 2, 16)
    shares = (hashed_BM > 0).double().mean(dim=0).numpy()
    expected = stats.entropy(np.stack([shares, 1 - shares]), base=2).mean()
    assert float(bit_entropy(hashed_BM)) == pytest.approx(expected, abs=1e-4)
    assert float(bit_entropy(torch.ones(8, 3))) == pytest.approx(0, abs=1e-4)
