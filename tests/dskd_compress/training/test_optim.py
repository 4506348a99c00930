"""The learning rate against its textbook formula, and who is decayed."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from support import make_model, make_pair
from torch import nn

from dskd_compress.config import DskdMethod, TrainSection
from dskd_compress.methods import create_task
from dskd_compress.timm_import import import_timm
from dskd_compress.training.optim import create_optimization
from dskd_export.errors import DiagnosisError, RecipeError

PER_EPOCH = 5
EPOCHS = 6
TOTAL = PER_EPOCH * EPOCHS
LR = 0.4


def rates(**change: object) -> list[float]:
    """Learning rate of every step of a training."""
    section = TrainSection.model_validate({"epochs": EPOCHS, "lr": LR, "weight_decay": 0.0, **change})
    optimization = create_optimization(nn.Linear(2, 2), section, PER_EPOCH)
    found = [optimization.set_step(step) for step in range(TOTAL)]
    assert [optimization.set_step(step) for step in reversed(range(TOTAL))] == found[::-1]  # no hidden state
    assert {group["lr"] for group in optimization.optimizer.param_groups} == {found[0]}
    return found


def cosine(step: int) -> float:
    return LR * (1 + math.cos(math.pi * step / TOTAL)) / 2


SCHEDULES: dict[str, tuple[dict[str, object], Callable[[int], float]]] = {
    "cosine": ({}, cosine),
    "cosine to a floor": (
        {"min_lr": 0.1},
        lambda step: 0.1 + (LR - 0.1) * (1 + math.cos(math.pi * step / TOTAL)) / 2,
    ),
    "step": ({"scheduler": "step", "decay_epochs": 2, "decay_rate": 0.5}, lambda step: LR * 0.5 ** (step // 10)),
    "step of half an epoch": (
        {"scheduler": "step", "decay_epochs": 0.6, "decay_rate": 0.9},
        lambda step: LR * 0.9 ** (step // 3),
    ),
    "multistep": (
        {"scheduler": "multistep", "milestones": (2, 5)},
        lambda step: LR * 0.1 ** ((step + 1 >= 10) + (step + 1 >= 25)),  # timm's drops come one update early
    ),
    "poly": ({"scheduler": "poly", "min_lr": 0.1}, lambda step: 0.1 + (LR - 0.1) * (1 - step / TOTAL)),
    "poly does not take the rate of step": (
        {"scheduler": "poly", "decay_rate": 0.3},
        lambda step: LR * (1 - step / TOTAL),
    ),
    "constant": ({"scheduler": "constant"}, lambda step: LR),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_is_its_formula(name: str) -> None:
    change, formula = SCHEDULES[name]
    assert rates(**change) == pytest.approx([formula(step) for step in range(TOTAL)], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_warm_up_is_a_straight_line_and_then_the_schedule_as_it_was(name: str) -> None:
    change, formula = SCHEDULES[name]
    warm = 2 * PER_EPOCH
    found = rates(**change, warmup_epochs=2, warmup_lr=0.02)
    line = [0.02 + (LR - 0.02) * step / warm for step in range(warm)]
    assert found[:warm] == pytest.approx(line)
    assert found[warm:] == pytest.approx([formula(step) for step in range(warm, TOTAL)], rel=1e-6, abs=1e-9)


def decays(module: nn.Module, **change: object) -> dict[str, float]:
    """Parameter -> its weight decay."""
    section = TrainSection.model_validate({"weight_decay": 0.3, **change})
    groups = create_optimization(module, section, PER_EPOCH).optimizer.param_groups
    of = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    return {name: of[id(parameter)] for name, parameter in module.named_parameters()}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lamb"])
def test_biases_and_norms_are_not_decayed(optimizer: str) -> None:
    model = make_model("test_resnet")
    vectors = {
        f"{name}.{part}" if name else part
        for name, child in model.named_modules()
        for part, _ in child.named_parameters(recurse=False)
        if part == "bias" or isinstance(child, nn.BatchNorm2d)
    }
    found = decays(model, optimizer=optimizer)
    assert {name for name, decay in found.items() if decay == 0} == vectors
    assert {decay for name, decay in found.items() if name not in vectors} == {0.3}


def test_what_timm_exempts_stays_exempt_inside_the_task() -> None:
    """A ViT's position embedding has four dimensions less than a kernel and is never decayed."""
    pair = make_pair("test_vit", "test_vit", size=160)
    task = create_task(DskdMethod(), pair.student, pair, label_smoothing=0, seed=0, device=torch.device("cpu"))
    found = decays(task.module)
    assert pair.student.no_weight_decay() >= {"pos_embed", "cls_token"}
    assert found["student.pos_embed"] == 0
    assert found["student.cls_token"] == 0
    assert found["student.blocks.0.attn.qkv.weight"] == 0.3
    assert any(name.startswith("denoiser.") and decay == 0.3 for name, decay in found.items())
    assert all(decay == 0 for name, decay in found.items() if name.endswith(".bias"))


def test_student_and_heads_are_optimised_and_the_teacher_is_not() -> None:
    pair = make_pair("test_efficientnet", "test_resnet")
    task = create_task(DskdMethod(), pair.student, pair, label_smoothing=0, seed=0, device=torch.device("cpu"))
    groups = create_optimization(task.module, TrainSection(), PER_EPOCH).optimizer.param_groups
    optimised = {id(parameter) for group in groups for parameter in group["params"]}
    assert optimised == {id(parameter) for parameter in task.module.parameters()}
    assert not optimised & {id(parameter) for parameter in pair.teacher.parameters()}


def test_a_module_that_is_left_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    import_timm()
    import timm.optim

    real = timm.optim.create_optimizer_v2
    module = nn.ModuleDict({"student": nn.Linear(2, 2), "projection": nn.Linear(2, 3)})
    monkeypatch.setattr(timm.optim, "create_optimizer_v2", lambda m, **args: real(m["student"], **args))
    with pytest.raises(DiagnosisError, match=r"projection\.weight"):
        create_optimization(module, TrainSection(), PER_EPOCH)
    module["projection"].requires_grad_(False)
    create_optimization(module, TrainSection(), PER_EPOCH)


@pytest.mark.parametrize("name", ["sgd", "SGD", "adamw", "lamb", "lion", "muon", "adafactor"])
def test_optimizers_of_timm(name: str) -> None:
    model = make_model("test_resnet")
    optimization = create_optimization(model, TrainSection(optimizer=name, lr=0.01), PER_EPOCH)
    optimization.set_step(0)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    optimization.optimizer.step()
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_momentum_reaches_the_optimizer() -> None:
    groups = create_optimization(nn.Linear(2, 2), TrainSection(momentum=0.42), PER_EPOCH).optimizer.param_groups
    assert {group["momentum"] for group in groups} == {0.42}


def test_an_unknown_optimizer() -> None:
    with pytest.raises(RecipeError, match=r"train\.optimizer.*'adamz'.*adamw") as caught:
        create_optimization(nn.Linear(2, 2), TrainSection(optimizer="adamz"), PER_EPOCH)
    assert "bnb" not in str(caught.value)  # those need packages of their own


@pytest.mark.parametrize("everything", [False, True])
def test_what_decays(everything: bool) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    section = TrainSection(weight_decay=0.1, decay_norm_and_bias=everything)
    groups = create_optimization(module, section, 10).optimizer.param_groups
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert decays[id(module[0].weight)] == 0.1
    assert {decays[id(p)] for p in (module[0].bias, module[1].weight)} == {0.1 if everything else 0.0}
