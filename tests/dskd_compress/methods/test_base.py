"""What all methods share: a teacher that stays as it is, and a task that timm's loop understands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest
import torch
import torch.distributed
from support import CLASSES, make_model
from timm.task import TrainingTask
from torch import Tensor, nn

from dskd_compress.config import DskdMethod, KdMethod, Method, NoneMethod
from dskd_compress.methods import MethodTask, Pair, create_task
from dskd_compress.methods.base import StepContext, StudentModule, Teacher
from dskd_compress.models import state_sha256

CPU = torch.device("cpu")
METHODS: dict[str, Method] = {kind().name: kind() for kind in get_args(get_args(Method)[0])}


def make_task(method: Method, pair: Pair) -> MethodTask:
    return create_task(method, pair.student, pair, label_smoothing=0.0, seed=0, device=CPU)


def train_one_step(task: MethodTask, images_BCHW: Tensor, labels_B: Tensor) -> None:
    task.train()
    task(images_BCHW, labels_B)["loss"].backward()
    with torch.no_grad():
        for parameter in task.module.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
                parameter.grad = None


# --- the teacher


def test_a_teacher_is_frozen_and_stays_in_eval_mode(cnn_pair: Pair, images_BCHW: Tensor) -> None:
    model = make_model("test_resnet", drop_rate=0.5).train()
    teacher = Teacher(model, cnn_pair.adapter())
    before = state_sha256(model)
    for parent in (teacher, nn.ModuleList([teacher])):
        parent.train()
        assert not any(module.training for module in teacher.modules())
    first, second = (teacher(images_BCHW.requires_grad_()).logits_BK for _ in range(2))
    assert torch.equal(first, second)  # no dropout
    assert not first.requires_grad
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert state_sha256(model) == before


def test_a_teacher_says_what_its_model_says(cnn_pair: Pair, images_BCHW: Tensor) -> None:
    output = Teacher(cnn_pair.teacher, cnn_pair.adapter())(images_BCHW)
    with torch.no_grad():
        assert torch.equal(output.logits_BK, cnn_pair.teacher(images_BCHW))
    assert output.feat is None
    assert output.prefix_BPC is None


@pytest.mark.parametrize("tap", ["vector", "map"])
def test_reading_the_tap_leaves_the_logits_alone(tap: str, cnn_pair: Pair, images_BCHW: Tensor) -> None:
    task = make_task(DskdMethod(tap=tap), cnn_pair)
    assert task.teacher is not None
    output = task.teacher(images_BCHW)
    with torch.no_grad():
        torch.testing.assert_close(output.logits_BK, cnn_pair.teacher(images_BCHW))
    assert output.feat.shape[1] == task.taps["teacher"].channels
    assert output.feat.dtype == torch.float32


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_training_does_not_touch_the_teacher(
    method: Method, cnn_pair: Pair, images_BCHW: Tensor, labels_B: Tensor
) -> None:
    task = make_task(method, cnn_pair)
    teacher, student = state_sha256(cnn_pair.teacher), state_sha256(cnn_pair.student)
    train_one_step(task, images_BCHW, labels_B)
    assert state_sha256(cnn_pair.teacher) == teacher
    assert state_sha256(cnn_pair.student) != student


# --- the task


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_task_gives_what_the_loop_of_timm_asks_for(
    method: Method, cnn_pair: Pair, images_BCHW: Tensor, labels_B: Tensor
) -> None:
    task = make_task(method, cnn_pair)
    assert isinstance(task, TrainingTask)
    task.train()
    result = task(images_BCHW, labels_B)
    assert set(result) == {"loss", "output", "terms", "monitors", "teacher"}
    total = sum(float(term.detach()) for term in result["terms"].values())
    assert float(result["loss"].detach()) == pytest.approx(total, rel=1e-5)
    assert result["loss"].shape == ()
    assert result["output"].shape == (8, CLASSES)
    assert all(not value.requires_grad for value in result["monitors"].values())


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_the_eval_model_is_the_bare_student(method: Method, cnn_pair: Pair) -> None:
    task = make_task(method, cnn_pair)
    assert task.get_eval_model() is cnn_pair.student
    assert task.get_eval_model(task.trainable_module) is cnn_pair.student
    assert task.has_ema() is False


def test_the_heads_are_task_state_and_the_student_is_not(cnn_pair: Pair) -> None:
    task = make_task(DskdMethod(), cnn_pair)
    state = task.get_task_state()
    assert not any(name.startswith("student.") for name in state)
    assert {name.split(".")[0] for name in state} >= {"projection", "denoiser"}
    everything = set(task.module.state_dict())
    assert everything == set(state) | {f"student.{name}" for name in cnn_pair.student.state_dict()}
    assert make_task(NoneMethod(), cnn_pair).get_task_state() == {}


def test_task_state_comes_back_and_leaves_the_student_alone(
    cnn_pair: Pair, images_BCHW: Tensor, labels_B: Tensor
) -> None:
    task = make_task(DskdMethod(), cnn_pair)
    saved = {name: value.clone() for name, value in task.get_task_state().items()}
    train_one_step(task, images_BCHW, labels_B)
    student = state_sha256(cnn_pair.student)
    assert any(not torch.equal(value, task.get_task_state()[name]) for name, value in saved.items())
    task.load_task_state(saved)
    assert all(torch.equal(value, task.get_task_state()[name]) for name, value in saved.items())
    assert state_sha256(cnn_pair.student) == student
    with pytest.raises(RuntimeError, match="projection"):
        task.load_task_state({name: value for name, value in saved.items() if "projection" not in name})


def test_what_is_discarded_is_counted(cnn_pair: Pair) -> None:
    task = make_task(DskdMethod(tap="map"), cnn_pair)
    student, teacher = (task.taps[role].channels for role in ("student", "teacher"))
    found = task.discarded()
    assert found["projection"] == student * teacher + 2 * teacher  # a 1x1 convolution and a batch norm
    assert set(found) == {"projection", "denoiser"}
    heads = sum(v.numel() for k, v in task.module.named_parameters() if not k.startswith("student."))
    assert sum(found.values()) == heads
    assert make_task(KdMethod(), cnn_pair).discarded() == {}


@pytest.mark.parametrize("name", ["none", "kd", "dkd", "dist"])
def test_methods_that_read_logits_have_no_taps(name: str, cnn_pair: Pair) -> None:
    task = make_task(METHODS[name], cnn_pair)
    assert task.taps == {}
    task.fit_statistics(iter([]))  # and need no statistics


def test_the_list_of_what_is_not_decayed_carries_the_names_of_the_task() -> None:
    module = StudentModule(make_model("test_vit"), 0.0)
    assert module.no_weight_decay() >= {"student.pos_embed", "student.cls_token"}
    names = dict(module.named_parameters())
    assert {"student.pos_embed", "student.cls_token"} <= set(names)
    assert StudentModule(nn.Linear(2, 2), 0.0).no_weight_decay() == set()


def test_a_method_without_a_forward_is_a_bug() -> None:
    with pytest.raises(NotImplementedError):
        StudentModule(nn.Linear(2, 2), 0.0)(torch.zeros(1, 2), torch.zeros(1), None, StepContext())


# --- the weight average


def test_the_average_is_the_textbook_one(cnn_pair: Pair, images_BCHW: Tensor, labels_B: Tensor) -> None:
    """ema <- decay ema + (1 - decay) theta; without warm-up, the first update takes theta itself."""
    task = make_task(DskdMethod(), cnn_pair)
    task.setup_ema(decay=0.8)
    expected: dict[str, Tensor] = {}
    for step in range(1, 4):
        train_one_step(task, images_BCHW, labels_B)
        task.update_ema(step=step)
        decay = 0.0 if step == 1 else 0.8
        for name, value in cnn_pair.student.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected.get(name, torch.zeros_like(value)) + (1 - decay) * value
    averaged = task.get_eval_model(ema=True)
    assert averaged is not cnn_pair.student
    found = averaged.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    assert set(found) == set(cnn_pair.student.state_dict())


def test_the_average_does_not_copy_the_teacher(cnn_pair: Pair) -> None:
    """The teacher's head is used by the trainable module; a copy of it would be a second teacher in memory."""
    task = make_task(DskdMethod(), cnn_pair)
    own = sum(parameter.numel() for parameter in task.module.parameters())
    task.setup_ema(decay=0.9)
    averaged = task.get_trainable_module(ema=True).module
    assert sum(parameter.numel() for parameter in averaged.parameters()) == own
    assert averaged.teacher_head is task.module.teacher_head


# --- distributed


@pytest.fixture
def one_process() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_distributed_wraps_the_trainable_module_only(
    method: Method, cnn_pair: Pair, images_BCHW: Tensor, labels_B: Tensor, one_process: None
) -> None:
    task = make_task(method, cnn_pair)
    module = task.module
    task.train()
    torch.manual_seed(1)
    alone = float(task(images_BCHW, labels_B)["loss"].detach())
    assert task.prepare_distributed() is task
    assert isinstance(task.trainable_module, nn.parallel.DistributedDataParallel)
    assert task.module is module
    assert task.get_eval_model() is cnn_pair.student
    task.train()
    torch.manual_seed(1)
    result = task(images_BCHW, labels_B)
    assert float(result["loss"].detach()) == pytest.approx(alone, rel=1e-5)
    result["loss"].backward()
    assert all(parameter.grad is not None for parameter in cnn_pair.student.parameters())
