"""Options that are off by default: schedules, a target between two, several draws."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from dskd_compress.config import DskdMethod
from dskd_compress.methods import MethodTask, Pair, create_task
from dskd_compress.methods.base import StepContext
from dskd_compress.methods.dskd.guidance import TeacherHead
from dskd_compress.methods.dskd.method import DskdModule, schedule_factor
from dskd_compress.methods.noise import StepNoise


def make_task(pair: Pair, **settings: object) -> MethodTask:
    method = DskdMethod.model_validate({"tap": "vector", "ramp_fraction": 0.0, **settings})
    return create_task(method, pair.student, pair, label_smoothing=0, seed=0, device=torch.device("cpu"))


def terms(task: MethodTask, images: Tensor, labels: Tensor, progress: float) -> dict[str, float]:
    task.eval()
    torch.manual_seed(0)
    with torch.no_grad():
        return {
            name: float(value)
            for name, value in task(images, labels, StepContext(progress=progress))["terms"].items()
        }


def denoise(task: MethodTask, images: Tensor, progress: float) -> Tensor:
    """v of a fixed u."""
    module, teacher = task.module.eval(), task.teacher
    assert isinstance(module, DskdModule)
    assert teacher is not None
    head = TeacherHead(module.teacher_head, module.space.mean_C, module.space.std_C)
    u = torch.randn(8, len(module.space.mean_C), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return module.denoise(u, head, teacher(images).logits_BK.softmax(dim=1), progress, StepNoise())


def test_schedules() -> None:
    progress = (0.0, 0.25, 1.0)
    assert [schedule_factor("constant", p) for p in progress] == [1.0, 1.0, 1.0]
    assert [schedule_factor("linear_decay", p) for p in progress] == [1.0, 0.75, 0.0]
    assert [schedule_factor("linear_growth", p) for p in progress] == [0.0, 0.25, 1.0]


@pytest.mark.parametrize(("schedule", "off", "on"), [("linear_decay", 1.0, 0.0), ("linear_growth", 0.0, 1.0)])
def test_the_guidance_follows_its_schedule(
    schedule: str, off: float, on: float, cnn_pair: Pair, images_BCHW: Tensor
) -> None:
    def v(progress: float, **settings: object) -> Tensor:
        return denoise(make_task(cnn_pair, guide_clip=None, **settings), images_BCHW, progress)

    torch.testing.assert_close(v(off, guide_schedule=schedule), v(0.5, guide_scale=0.0))
    torch.testing.assert_close(v(on, guide_schedule=schedule), v(0.5, guide_scale=1.0))
    torch.testing.assert_close(v(0.5, guide_schedule=schedule), v(0.5, guide_scale=0.5))
    assert not torch.allclose(v(off, guide_schedule=schedule), v(on, guide_schedule=schedule))


@pytest.mark.parametrize(
    ("schedule", "share"), [("constant", 1.0), ("linear_decay", 0.75), ("linear_growth", 0.25)]
)
def test_the_anchor_follows_its_schedule_and_the_rest_does_not(
    schedule: str, share: float, cnn_pair: Pair, images_BCHW: Tensor, labels_B: Tensor
) -> None:
    plain = terms(make_task(cnn_pair), images_BCHW, labels_B, 0.25)
    found = terms(make_task(cnn_pair, head_schedule=schedule), images_BCHW, labels_B, 0.25)
    assert found.pop("head") == pytest.approx(share * plain.pop("head"), rel=1e-5)
    assert found == plain


def test_the_target_lies_between_the_denoised_feature_and_the_teachers(
    cnn_pair: Pair, images_BCHW: Tensor, labels_B: Tensor
) -> None:
    """What the hash loss is given: (1 - mix) v + mix z_T."""
    targets = {}
    for mix in (0.0, 0.3, 1.0):
        task = make_task(cnn_pair, target_mix=mix)
        module = task.module
        assert isinstance(module, DskdModule)
        module.hash_loss.register_forward_pre_hook(lambda _, inputs, mix=mix: targets.update({mix: inputs[1]}))
        terms(task, images_BCHW, labels_B, 0.5)
        assert task.teacher is not None
        z_teacher = task.teacher(images_BCHW).feat
    torch.testing.assert_close(targets[1.0], z_teacher)
    torch.testing.assert_close(targets[0.3], 0.7 * targets[0.0] + 0.3 * targets[1.0])
    assert not torch.allclose(targets[0.0], targets[1.0])


def test_draws_are_averaged(cnn_pair: Pair, images_BCHW: Tensor) -> None:
    one, three = (make_task(cnn_pair, start="sdedit", draws=draws) for draws in (1, 3))
    torch.manual_seed(5)
    single = [denoise(one, images_BCHW, 0.5) for _ in range(3)]
    torch.manual_seed(5)
    torch.testing.assert_close(denoise(three, images_BCHW, 0.5), sum(single) / 3)
    assert not torch.allclose(single[0], single[1])


@pytest.mark.parametrize("start", ["scaled", "raw"])
def test_draws_of_a_start_without_noise_are_refused(start: str) -> None:
    with pytest.raises(
        ValidationError, match=f"draws 2 needs start sdedit: with start {start} all draws are alike"
    ):
        DskdMethod.model_validate({"draws": 2, "start": start})
    assert DskdMethod.model_validate({"draws": 2, "start": "sdedit"}).draws == 2
