"""Every fault is planted in a real training and has to be found within 100 steps; a healthy one has none."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diagnosis_support import DSKD, FORMAT, Digits, Watched, watch
from torch import Tensor, nn

from dskd_compress.config import DiagnosisSection, KdMethod, Method, NoneMethod
from dskd_compress.label_space import ClassNames, resolve_class_map
from dskd_compress.methods import MethodTask
from dskd_compress.methods.base import StepContext, Teacher
from dskd_compress.methods.dskd.method import DskdModule
from dskd_compress.methods.lsh import HashLoss
from dskd_compress.models import Norm, TeacherInput
from dskd_compress.recipe import recipe_from_mapping
from dskd_compress.training.diagnosis import Formats
from dskd_compress.training.loop import Trainer
from dskd_export.documents.training import Finding, FindingKind

OFTEN = DiagnosisSection(every_steps=25)
NORM: Norm = (FORMAT.mean, FORMAT.std)
STEPS = 52


def the_one(seen: Watched, kind: FindingKind, within: int) -> Finding:
    """The only fault that was found, and found in time."""
    assert [finding.kind for finding in seen.findings] == [kind]
    (finding,) = seen.findings
    assert finding.step <= within
    assert all(len(text) > 20 for text in (finding.seen, finding.means, finding.cure))
    return finding


def with_faulty_method(module: nn.Module, method: str, replacement: Any) -> None:
    """Replace one method of a module."""
    module.__class__ = type("Faulty", (type(module),), {method: replacement})


# --- healthy


@pytest.fixture(scope="module")
def healthy(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    folder = tmp_path_factory.mktemp("healthy")
    return watch(digits, folder, digits.task(DSKD), steps=STEPS, section=OFTEN, known_accuracy=0.97, whole=True)


def test_a_healthy_training_has_no_finding(healthy: Watched) -> None:
    assert healthy.error is None
    assert healthy.findings == []
    assert [look.step for look in healthy.looks] == [1, 2, 3, 25, 50]
    for look in healthy.looks[1:]:
        assert set(look.gradient_norms) == {"ce", "diffusion", "lsh", "head", "logit"}
        assert all(norm is not None and norm > 0 for norm in look.gradient_norms.values())
        assert look.teacher is not None
        assert look.teacher.accuracy > 0.8
    places = healthy.looks[0].gradient_at
    assert places["diffusion"].startswith("denoiser.")
    assert {places[term] for term in ("ce", "lsh", "head", "logit")} == {places["ce"]}
    assert places["ce"].startswith("student.")


def test_the_student_is_the_same_bit_for_bit_with_and_without(
    healthy: Watched, digits: Digits, tmp_path: Path
) -> None:
    alone = watch(digits, tmp_path, digits.task(DSKD), steps=STEPS, section=None)
    assert len(alone.steps) == len(healthy.steps) == STEPS
    assert alone.student.keys() == healthy.student.keys()
    assert all(torch.equal(value, healthy.student[name]) for name, value in alone.student.items())
    assert [record.losses for record in alone.steps] == [record.losses for record in healthy.steps]


@pytest.mark.parametrize("method", [KdMethod(), NoneMethod()])
def test_other_methods_are_healthy_too(method: Method, digits: Digits, tmp_path: Path) -> None:
    seen = watch(digits, tmp_path, digits.task(method), steps=4, whole=True)
    assert seen.findings == []
    assert [look.step for look in seen.looks] == [1, 2, 3]
    assert (seen.looks[0].teacher is None) == isinstance(method, NoneMethod)


# --- the teacher


def test_a_teacher_in_train_mode(digits: Digits, tmp_path: Path) -> None:
    task = digits.task(DSKD)
    assert task.teacher is not None
    task.teacher.__class__ = type("Restless", (Teacher,), {"train": nn.Module.train})
    seen = watch(digits, tmp_path, task, steps=STEPS)
    # Its batch statistics follow the images, which is seen as well.
    assert [finding.kind for finding in seen.findings] == ["teacher_mode", "teacher_changed"]
    assert seen.findings[0].step == 1
    assert seen.error is not None
    assert "in train mode" in seen.error.message
    assert "eval()" in str(seen.error.hint)
    assert seen.error.exit_code == 3


def test_a_teacher_that_is_not_frozen(digits: Digits, tmp_path: Path) -> None:
    task = digits.task(DSKD)
    assert task.teacher is not None
    task.teacher.model.requires_grad_(True)
    seen = watch(digits, tmp_path, task, steps=STEPS)
    assert the_one(seen, "teacher_not_frozen", within=0).term == next(iter(task.teacher.model.state_dict()))
    assert seen.error is not None
    assert seen.steps == []


def test_a_teacher_in_the_optimizer(digits: Digits, tmp_path: Path) -> None:
    def plant(trainer: Trainer) -> None:
        assert trainer.task.teacher is not None
        parameters = list(trainer.task.teacher.model.parameters())
        trainer.optimization.optimizer.add_param_group({"params": parameters[-1:]})

    seen = watch(digits, tmp_path, digits.task(DSKD), steps=STEPS, plant=plant)
    the_one(seen, "teacher_not_frozen", within=0)


@pytest.mark.parametrize("what", ["parameter", "buffer"])
def test_a_teacher_that_changes(what: str, digits: Digits, tmp_path: Path) -> None:
    task = digits.task(DSKD)
    assert task.teacher is not None
    model = task.teacher.model
    named = dict(model.named_parameters() if what == "parameter" else model.named_buffers())
    name = [key for key, tensor in named.items() if tensor.numel() > 1][-1]

    def plant(trainer: Trainer) -> None:
        judge = trainer.after_backward
        assert judge is not None

        def change(context: StepContext) -> None:
            judge(context)
            if context.step == 4:
                named[name].data[0] += 1e-6 + named[name].data[0].abs() * 1e-6

        trainer.after_backward = change

    seen = watch(digits, tmp_path, task, steps=STEPS, section=OFTEN, plant=plant)
    finding = the_one(seen, "teacher_changed", within=25)
    assert finding.term == name
    assert finding.severity == "stop"
    assert seen.error is not None


# --- the optimizer


@pytest.mark.parametrize("head", ["projection", "denoiser"])
def test_a_head_that_the_optimizer_does_not_have(head: str, digits: Digits, tmp_path: Path) -> None:
    def plant(trainer: Trainer) -> None:
        forgotten = {id(parameter) for parameter in getattr(trainer.task.module, head).parameters()}
        for group in trainer.optimization.optimizer.param_groups:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in forgotten]

    seen = watch(digits, tmp_path, digits.task(DSKD), steps=STEPS, plant=plant)
    assert the_one(seen, "not_optimized", within=0).term == head
    assert seen.error is not None


# --- what the teacher is shown


def test_images_that_are_not_renormalised_for_the_teacher(digits: Digits, tmp_path: Path) -> None:
    """The teacher wants ImageNet's normalisation and gets the student's."""
    imagenet: Norm = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    formats = Formats(NORM, imagenet)
    seen = watch(digits, tmp_path, digits.task(DSKD), steps=STEPS, formats=formats)
    finding = the_one(seen, "teacher_input", within=1)
    assert finding.term == "normalisation"
    assert "mean -0.3" in finding.seen
    assert finding.severity == "warning"


def test_a_teacher_that_is_said_to_want_another_normalisation(digits: Digits, tmp_path: Path) -> None:
    """Trained with Inception's mean and std, and given pixels of 0 to 255: nothing but its answers tells."""
    raw: Norm = ((0.0,) * 3, (1 / 255,) * 3)
    task = digits.task(KdMethod())
    assert task.teacher is not None
    task.teacher.adapt = TeacherInput(NORM, raw, None)
    finding = the_one(watch(digits, tmp_path, task, steps=STEPS, formats=Formats(NORM, raw)), "teacher_input", 3)
    assert finding.term == "normalisation"
    assert "Inception's" in finding.seen
    assert "--set 'teacher.mean=[0.5, 0.5, 0.5]' --set 'teacher.std=[0.5, 0.5, 0.5]'" in finding.cure


def test_a_teacher_that_sees_something_else_than_in_its_training(digits: Digits, tmp_path: Path) -> None:
    """Images on their side, which no normalisation mends; its accuracy after its own training is known."""
    model = digits.teacher()
    model.register_forward_pre_hook(lambda module, inputs: (inputs[0].transpose(2, 3).flip(2),))
    seen = watch(digits, tmp_path, digits.task(KdMethod(), model), steps=STEPS, known_accuracy=0.97)
    finding = the_one(seen, "teacher_input", within=3)
    assert finding.term == "accuracy"
    assert "97%" in finding.seen


def test_images_that_were_normalised_twice(digits: Digits, tmp_path: Path) -> None:
    task = digits.task(KdMethod())
    task.register_forward_pre_hook(lambda module, inputs: ((inputs[0] - 0.45) / 0.225, inputs[1]))
    seen = watch(digits, tmp_path, task, steps=1, whole=True)
    assert [finding.term for finding in seen.findings] == ["data"]
    assert seen.findings[0].kind == "teacher_input"


# --- what the teacher's classes mean


def test_a_teacher_of_another_class_order(digits: Digits, tmp_path: Path) -> None:
    order = [3, 0, 2, 1, 7, 4, 6, 5, 9, 8]  # output k means class order[k]
    teacher = digits.teacher()
    classifier: nn.Linear = teacher.get_classifier()  # type: ignore[operator]
    classifier.weight.data = classifier.weight.data[order]
    classifier.bias.data = classifier.bias.data[order]
    seen = watch(digits, tmp_path, digits.task(DSKD, teacher), steps=STEPS, known_accuracy=0.97)
    finding = the_one(seen, "class_order", within=3)
    assert "Its output 0 is 3 (3), 1 is 0 (0)" in finding.seen
    assert seen.error is not None
    option, setting = shlex.split(str(seen.error.hint).removeprefix("Add to the command: "))
    assert option == "--set"
    base = {"teacher": {"name": "a"}, "student": {"name": "b"}}
    mapping = recipe_from_mapping(base, [setting]).teacher.class_map
    assert isinstance(mapping, dict)
    groups = resolve_class_map(mapping, ClassNames(10), digits.sets.classes)
    assert [group[0] for group in groups] == [order.index(k) for k in range(10)]


def test_a_short_training_is_judged_at_its_last_step(digits: Digits, tmp_path: Path) -> None:
    """Three looks of twelve images are too few, and the fourth would come after its end."""
    teacher = digits.teacher()
    classifier: nn.Linear = teacher.get_classifier()  # type: ignore[operator]
    classifier.weight.data, classifier.bias.data = classifier.weight.data.flip(0), classifier.bias.data.flip(0)
    for last in (None, 36):
        task = digits.task(KdMethod(), teacher)
        seen = watch(digits, tmp_path / str(last), task, steps=36, last=last, batch=12)
        assert [finding.step for finding in seen.findings] == ([] if last is None else [36])


# --- loss terms


def with_faulty_hash(digits: Digits, fault: Callable[[Tensor], Tensor]) -> MethodTask:
    """A task whose hash loss sees the student's feature through a fault."""
    task = digits.task(DSKD)
    with_faulty_method(
        task.module.hash_loss, "forward", lambda self, u, *rest: HashLoss.forward(self, fault(u), *rest)
    )
    return task


def test_a_term_that_is_detached_from_the_student(digits: Digits, tmp_path: Path) -> None:
    task = with_faulty_hash(digits, Tensor.detach)
    finding = the_one(watch(digits, tmp_path, task, steps=STEPS), "dead_term", within=1)
    assert finding.term == "lsh"
    assert "detach()" in finding.cure


def test_a_term_whose_gradient_vanishes(digits: Digits, tmp_path: Path) -> None:
    task = with_faulty_hash(digits, lambda u: u.detach() + 1e-12 * (u - u.detach()))
    seen = watch(digits, tmp_path, task, steps=STEPS, section=OFTEN)
    assert the_one(seen, "dead_term", within=25).term == "lsh"


def test_a_term_that_is_always_zero(digits: Digits, tmp_path: Path) -> None:
    method = DSKD.model_copy(update={"lsh_weight": 0.0})
    finding = the_one(watch(digits, tmp_path, digits.task(method), steps=STEPS), "dead_term", within=3)
    assert finding.term == "lsh"
    assert "If its weight is 0 on purpose" in finding.cure


def test_a_term_that_explodes(digits: Digits, tmp_path: Path) -> None:
    method = DSKD.model_copy(update={"lsh_weight": 1e6})
    finding = the_one(watch(digits, tmp_path, digits.task(method), steps=STEPS), "exploding_term", within=3)
    assert finding.term == "lsh"
    assert "method.lsh_weight" in finding.cure


# --- denoised features


def test_denoised_features_that_collapse(digits: Digits, tmp_path: Path) -> None:
    def collapse(self: DskdModule, *arguments: Any) -> Tensor:
        v = DskdModule.denoise(self, *arguments)
        return v.mean(dim=0, keepdim=True) + 0.01 * (v - v.mean(dim=0, keepdim=True))

    task = digits.task(DSKD)
    with_faulty_method(task.module, "denoise", collapse)
    finding = the_one(watch(digits, tmp_path, task, steps=STEPS, section=OFTEN), "collapsed_target", within=50)
    assert finding.term == "denoised_spread"


# --- stop or warn


def test_the_recipe_says_what_ends_the_training(digits: Digits, tmp_path: Path) -> None:
    method = DSKD.model_copy(update={"lsh_weight": 1e6})
    section = DiagnosisSection(stop_on=("exploding_term",))
    seen = watch(digits, tmp_path, digits.task(method), steps=STEPS, section=section)
    assert seen.error is not None
    assert [finding.severity for finding in seen.findings] == ["stop"]
    assert len(seen.steps) == seen.findings[0].step - 1  # no update with the exploding gradient


def test_a_fault_is_told_once(digits: Digits, tmp_path: Path) -> None:
    task = with_faulty_hash(digits, Tensor.detach)
    seen = watch(digits, tmp_path, task, steps=3, whole=True)
    assert len(seen.looks) == 3
    assert len(seen.findings) == 1


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_training_is_healthy_too(backend: str, digits: Digits, tmp_path: Path) -> None:
    task = digits.task(DSKD)
    task.compile(backend=backend)
    seen = watch(digits, tmp_path, task, steps=STEPS, section=OFTEN, whole=True)
    assert seen.findings == []
    assert seen.looks[-1].gradient_at["lsh"] == "student"
    assert all(seen.looks[-1].gradient_norms.values())
