"""Guidance: closed form against autograd, autograd against finite differences, and what it is for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support import CLASSES, make_model
from torch import nn

from dskd_compress.methods.dskd.guidance import Guide, TeacherHead, clip_rms, guide_target
from dskd_compress.taps import Tap, TapHead, find_head, find_tap, probe


def heads(kind: str) -> tuple[TeacherHead, TeacherHead, torch.Tensor]:
    """The same head in closed form and by autograd, and a feature for it."""
    torch.manual_seed(0)
    linear = nn.Linear(12, CLASSES)
    mean_C, std_C = torch.randn(12), torch.rand(12) + 0.5
    if kind == "vector":
        tap, z = Tap("vector", 12, None, "vector"), torch.randn(4, 12)
        through = TapHead(linear, tap, lambda feat: linear(feat), None)
    else:
        tap, z = Tap("map", 12, (3, 5), "NCHW"), torch.randn(4, 12, 3, 5)
        through = TapHead(linear, tap, lambda feat: linear(feat.mean(dim=(2, 3))), None)
    closed = TapHead(linear, tap, None, linear)
    return TeacherHead(closed, mean_C, std_C), TeacherHead(through, mean_C, std_C), z


@pytest.mark.parametrize("kind", ["vector", "map"])
def test_closed_form_equals_autograd(kind: str) -> None:
    closed, through, z = heads(kind)
    target = torch.rand(4, CLASSES).softmax(dim=1)
    torch.testing.assert_close(closed.gradient(z, target), through.gradient(z, target), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["vector", "map"])
def test_gradient_equals_finite_differences(kind: str) -> None:
    closed, _, z = heads(kind)
    target = F.one_hot(torch.tensor([1, 2, 3, 4]), CLASSES).double()
    head = closed.head.linear
    assert head is not None
    head.double()
    double = TeacherHead(closed.head, closed.mean_C.double(), closed.std_C.double())

    def likelihood(value: torch.Tensor) -> torch.Tensor:
        return (target * double.logits(value).log_softmax(dim=1)).sum()

    z = z.double()
    direction = torch.randn_like(z)
    step = 1e-5
    slope = (likelihood(z + step * direction) - likelihood(z - step * direction)) / (2 * step)
    head.float()
    found = (closed.gradient(z.float(), target.float()) * direction.float()).sum()
    assert found.item() == pytest.approx(slope.item(), rel=1e-3)


def test_autograd_through_a_real_head_that_is_not_linear() -> None:
    """ConvNeXt's head is pool, norm, linear: no closed form on the map, a gradient all the same."""
    model = make_model("test_convnext").eval()
    seen = probe(model, (3, 64, 64))
    tap = find_tap(model, seen, "map")
    head = find_head(model, seen, tap)
    assert head.linear is None
    feat, _ = tap.read(model, seen.features)
    channels = torch.ones(tap.channels)
    teacher = TeacherHead(head, 0 * channels, channels)
    target = F.one_hot(torch.tensor([3, 7]), CLASSES).float()
    gradient = teacher.gradient(feat, target)
    before = (target * teacher.logits(feat).log_softmax(dim=1)).sum()
    after = (target * teacher.logits(feat + 0.1 * gradient).log_softmax(dim=1)).sum()
    assert float(after) > float(before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_fp32_inside_autocast() -> None:
    closed, _, z = heads("vector")
    target = F.one_hot(torch.tensor([1, 2, 3, 4]), CLASSES).float()
    outside = closed.gradient(z, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = closed.gradient(z.bfloat16().float(), target)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, closed.gradient(z.bfloat16().float(), target))
    assert outside.shape == inside.shape


def test_pooled_guidance_is_the_raw_one_times_the_grid() -> None:
    closed, _, z = heads("map")
    target = F.one_hot(torch.tensor([1, 2, 3, 4]), CLASSES).float()
    noise = torch.randn_like(z)
    pooled, raw = (Guide(closed, target, 1.0, "x0", spatial, None) for spatial in ("pooled", "raw"))
    torch.testing.assert_close(pooled(z, noise, 0.5), raw(z, noise, 0.5) * 15)


def test_where_the_head_is_read() -> None:
    """On `xt` the noise does not matter; on `x0` it does."""
    closed, _, z = heads("vector")
    target = F.one_hot(torch.tensor([1, 2, 3, 4]), CLASSES).float()
    noises = torch.randn_like(z), torch.randn_like(z)
    on_xt = [Guide(closed, target, 1.0, "xt", "raw", None)(z, noise, 0.5) for noise in noises]
    on_x0 = [Guide(closed, target, 1.0, "x0", "raw", None)(z, noise, 0.5) for noise in noises]
    assert torch.equal(*on_xt)
    assert not torch.allclose(*on_x0)


def test_clip_limits_each_image_by_itself() -> None:
    value = torch.tensor([[3.0, 4.0], [0.03, 0.04]])
    reference = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    clipped = clip_rms(value, reference, 1.0)
    assert float(clipped[0].square().mean().sqrt()) == pytest.approx(1.0)
    assert torch.equal(clipped[1], value[1])
    assert torch.equal(clip_rms(value, reference, None), value)
    assert torch.isfinite(clip_rms(torch.zeros(2, 2), reference, 1.0)).all()


def test_guide_targets() -> None:
    logits = torch.tensor([[4.0, 0.0, 0.0], [4.0, 0.0, 0.0]])
    labels = torch.tensor([0, 1])
    one_hot = F.one_hot(labels, 3).float()
    teacher = logits.softmax(dim=1)
    assert torch.equal(guide_target("label", logits, labels), one_hot)
    assert torch.equal(guide_target("teacher", logits, labels), teacher)
    mixed = guide_target("teacher_if_correct", logits, labels)
    assert torch.equal(mixed[0], teacher[0])
    assert torch.equal(mixed[1], one_hot[1])
    soft = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.2, 0.8]])
    assert torch.equal(guide_target("label", logits, soft), soft)
    assert float(guide_target("teacher", logits, labels, 4.0).max()) < float(teacher.max())
