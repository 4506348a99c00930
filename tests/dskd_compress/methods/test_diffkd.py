"""DiffKD against its equations, and against DSKD where the two are the same."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support import make_pair
from torch import Tensor, nn

from dskd_compress.config import DiffKdMethod, DskdMethod
from dskd_compress.methods import MethodTask, Pair, create_task
from dskd_compress.methods.diffkd import DiffKdModule, DiffusionBranch, NoiseAdapter
from dskd_compress.methods.dskd.guidance import TeacherHead
from dskd_compress.methods.dskd.method import DskdModule
from dskd_compress.methods.noise import StepNoise


def make_task(method: DiffKdMethod | DskdMethod, pair: Pair) -> MethodTask:
    return create_task(method, pair.student, pair, label_smoothing=0, seed=0, device=torch.device("cpu"))


def make_branch(kind: str = "map", latent: int | None = None) -> DiffusionBranch:
    torch.manual_seed(3)
    channels = latent or 32
    trans = nn.Conv2d(8, channels, 1) if kind == "map" else nn.Linear(8, channels)
    return DiffusionBranch(trans, kind, 32, latent, start_step=400, sample_steps=5)  # type: ignore[arg-type]


def features(kind: str) -> tuple[Tensor, Tensor]:
    places = (3, 2) if kind == "map" else ()
    return torch.randn(6, 8, *places, requires_grad=True), torch.randn(6, 32, *places)


def by_hand(branch: DiffusionBranch, student: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Refined feature and denoiser's loss, from the equations, with the same random numbers in the same order."""
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    abar = torch.exp(torch.log1p(-beta).cumsum(0)).float()
    broadcast = (-1,) + (1,) * (target.ndim - 1)
    step = torch.randint(1000, (len(target),))
    noise = torch.randn_like(target)
    signal = abar[step].view(broadcast)
    predicted = branch.denoiser(signal.sqrt() * target + (1 - signal).sqrt() * noise, step)
    diffusion = ((predicted - noise) ** 2).sum() / noise.numel()
    u = branch.trans(student)
    body = branch.adapter.body(u)
    logit = branch.adapter.predict(body.flatten(2).mean(dim=2) if target.ndim == 4 else body)
    share = torch.sigmoid(logit[:, 0] - logit[:, 1]).view(broadcast)
    z = share * u + (1 - share) * torch.randn_like(u)
    for now, then in ((400, 300), (300, 200), (200, 100), (100, 0), (0, None)):
        eps = branch.denoiser(z, torch.full((len(z),), now))
        clean = (z - (1 - abar[now]) ** 0.5 * eps) / abar[now] ** 0.5
        z = clean if then is None else abar[then] ** 0.5 * clean + (1 - abar[then]) ** 0.5 * eps
    return branch.proj(z), diffusion


@pytest.mark.parametrize("kind", ["vector", "map"])
def test_a_branch_equals_the_equations_and_so_does_its_gradient(kind: str) -> None:
    branch, other = make_branch(kind), make_branch(kind)
    student, teacher = features(kind)
    again = student.detach().clone().requires_grad_()
    torch.manual_seed(7)
    found = branch(student, teacher, StepNoise())
    torch.manual_seed(7)
    refined, diffusion = by_hand(other, again, teacher)
    torch.testing.assert_close(found.feat, refined, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found.diffusion, diffusion)
    assert found.target is teacher
    assert found.reconstruction is None
    F.mse_loss(found.feat, teacher).backward()
    F.mse_loss(refined, teacher).backward()
    assert student.grad is not None
    assert float(student.grad.abs().max()) > 0
    torch.testing.assert_close(student.grad, again.grad, rtol=1e-2, atol=1e-7)


@pytest.mark.parametrize("kind", ["vector", "map"])
def test_the_autoencoder_is_taught_by_its_reconstruction_alone(kind: str) -> None:
    branch = make_branch(kind, latent=16)
    student, teacher = features(kind)
    found = branch(student, teacher, StepNoise())
    assert found.feat.shape[1] == found.target.shape[1] == 16
    (F.mse_loss(found.feat, found.target) + found.diffusion).backward(retain_graph=True)
    assert branch.autoencoder is not None
    assert all(parameter.grad is None for parameter in branch.autoencoder.parameters())
    assert found.reconstruction is not None
    code = branch.autoencoder.encoder(teacher)
    expected = ((branch.autoencoder.decoder(code) - teacher) ** 2).sum() / teacher.numel()
    torch.testing.assert_close(found.reconstruction, expected)
    found.reconstruction.backward()
    assert all(parameter.grad is not None for parameter in branch.autoencoder.parameters())


@pytest.mark.parametrize("kind", ["vector", "map"])
def test_the_adapters_share_lies_between_noise_and_feature(kind: str) -> None:
    adapter = NoiseAdapter(kind, 32)  # type: ignore[arg-type]
    share_B = adapter(features(kind)[1])
    assert share_B.shape == (6,)
    assert ((share_B > 0) & (share_B < 1)).all()


def test_without_noise_and_projection_it_is_dskd_without_guidance(images_BCHW: Tensor, labels_B: Tensor) -> None:
    """Feature branch = DSKD's chain from the raw feature, unguided, with the gradient through it."""
    pair = make_pair("test_efficientnet", "test_resnet")
    branch = make_task(DiffKdMethod(tap="map"), pair).module.feature_branch
    assert isinstance(branch, DiffusionBranch)
    branch.eval()
    with torch.no_grad():
        branch.adapter.predict.weight.zero_()
        branch.adapter.predict.bias.copy_(torch.tensor([50.0, -50.0]))
    branch.proj = nn.Sequential()
    settings = {"tap": "map", "guide_scale": 0.0, "start": "raw", "start_scale": "own", "detach_target": False}
    task = make_task(DskdMethod.model_validate({**settings, "feature_norm": "none"}), pair)
    dskd = task.module
    assert isinstance(dskd, DskdModule)
    dskd.projection, dskd.denoiser = branch.trans, branch.denoiser
    assert task.teacher is not None
    teacher = task.teacher(images_BCHW)
    assert teacher.feat is not None
    feat = torch.randn(8, int(pair.student.num_features), 2, 2)
    gradients = []
    for method in ("diffkd", "dskd"):
        own = feat.clone().requires_grad_()
        if method == "diffkd":
            refined = branch(own, teacher.feat, StepNoise()).feat
        else:
            head = TeacherHead(dskd.teacher_head, dskd.space.mean_C, dskd.space.std_C)
            refined = dskd.denoise(dskd.projection(own), head, teacher.logits_BK.softmax(dim=1), 0.5, StepNoise())
        F.mse_loss(refined, teacher.feat).backward()
        gradients.append((refined.detach(), own.grad))
    torch.testing.assert_close(gradients[0][0], gradients[1][0])
    assert gradients[0][1] is not None
    torch.testing.assert_close(gradients[0][1], gradients[1][1], rtol=1e-3, atol=1e-8)


def test_the_logits_are_denoised_too_unless_their_weight_is_zero(
    cnn_pair: Pair, images_BCHW: Tensor, labels_B: Tensor
) -> None:
    task = make_task(DiffKdMethod(ae_channels=16), cnn_pair)
    module = task.module
    assert isinstance(module, DiffKdModule)
    task.train()
    result = task(images_BCHW, labels_B)
    assert set(result["terms"]) == {"ce", "diffusion", "feature", "denoised_logit", "reconstruction"}
    assert set(task.discarded()) == {"feature_branch", "logit_branch"}
    result["terms"]["denoised_logit"].backward()
    assert cnn_pair.student.get_classifier().weight.grad is not None  # type: ignore[operator]
    without = make_task(DiffKdMethod(denoised_logit_weight=0), make_pair("test_efficientnet", "test_resnet"))
    without.train()
    assert set(without(images_BCHW, labels_B)["terms"]) == {"ce", "diffusion", "feature"}
    assert set(without.discarded()) == {"feature_branch"}


def test_mixed_precision_keeps_the_losses_in_fp32(cnn_pair: Pair, images_BCHW: Tensor, labels_B: Tensor) -> None:
    task = make_task(DiffKdMethod(ae_channels=16, logit_loss="dist"), cnn_pair)
    task.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = task(images_BCHW, labels_B)
    assert {term.dtype for term in result["terms"].values()} == {torch.float32}
    result["loss"].backward()
