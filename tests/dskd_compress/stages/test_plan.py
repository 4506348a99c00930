"""The plan against counts that are made by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from run_support import SMALL_STAGES, Finished, small_recipe
from sklearn.datasets import load_digits

from dskd_compress.console import Output
from dskd_compress.run_folder import RunFolder
from dskd_compress.stages.plan import Plan, make_plan, print_plan
from dskd_compress.timm_import import import_timm
from dskd_export.documents.base import read_document
from dskd_export.documents.training import TrainingDocument
from dskd_export.errors import DataError, EnvironmentProblem, ModelError, RecipeError


def plan_of(tmp_path: Path, *overrides: str) -> Plan:
    folder = RunFolder(tmp_path / "run")
    plan = make_plan(small_recipe(*overrides), folder)
    assert not folder.path.exists()
    return plan


def weights_of(name: str) -> int:
    """Parameters, counted by the shapes in the state dict."""
    state = import_timm().create_model(name, num_classes=10).state_dict()
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    return sum(math.prod(tensor.shape) for key, tensor in state.items() if not key.endswith(buffers))


def bytes_of(name: str) -> float:
    """Megabytes of everything in the state dict."""
    state = import_timm().create_model(name, num_classes=10).state_dict()
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values()) / 1e6


TEACHER, STUDENT = "test_resnet", "test_efficientnet"


def test_images_and_steps(tmp_path: Path) -> None:
    counts = np.bincount(load_digits().target)
    held_out = sum(int(count * 0.8 + 0.5) for count in counts)
    plan = plan_of(tmp_path)
    assert (plan.train_images, plan.val_images, plan.classes) == (1797 - held_out, held_out, 10)
    assert (plan.steps_per_epoch, plan.steps) == ((1797 - held_out) // 32, 2 * ((1797 - held_out) // 32))
    other = plan_of(tmp_path, "train.batch_size=50", "train.epochs=7")
    assert other.steps == 7 * ((1797 - held_out) // 50)


def test_models(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    assert plan.teacher is not None
    assert (plan.teacher.name, plan.teacher.parameters) == (TEACHER, weights_of(TEACHER))
    assert (plan.student.name, plan.student.parameters) == (STUDENT, weights_of(STUDENT))
    assert plan.teacher.input_size == plan.student.input_size == (3, 32, 32)
    assert plan.teacher.weights == "to be trained by this run"


def test_taps_and_what_is_thrown_away(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "method.tap=map", "data.input_size=64")
    teacher, student = plan.taps["teacher"], plan.taps["student"]
    assert teacher.kind == student.kind == "map"
    assert (
        plan.training_only_parameters["projection"] == student.channels * teacher.channels + 2 * teacher.channels
    )
    vector = plan_of(tmp_path, "method.tap=vector")
    teacher, student = vector.taps["teacher"], vector.taps["student"]
    assert vector.training_only_parameters["projection"] == (student.channels + 1) * teacher.channels


def test_it_is_what_the_training_then_does(finished: Finished, tmp_path: Path) -> None:
    plan = make_plan(finished.recipe, finished.folder)
    done = read_document(finished.folder / "distill.json", TrainingDocument)
    assert (plan.steps, plan.training_only_parameters, plan.taps) == (done.steps, done.discarded, done.taps)
    assert (plan.train_images, plan.val_images) == (done.data.train_images, done.data.val_images)
    assert plan.student.macs == done.model.macs


@pytest.mark.parametrize(("optimizer", "values"), [("sgd", 1), ("adamw", 2), ("lamb", 2)])
def test_memory_of_weights_gradients_and_optimizer(optimizer: str, values: int, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, f"train.optimizer={optimizer}")
    heads = sum(plan.training_only_parameters.values())
    trained = (weights_of(STUDENT) + heads) * 4 / 1e6
    # Buffers are not trained: batch norm statistics, hash planes (32 a channel), 64 waves for each of 1,000
    # diffusion steps, constants of channels and steps.
    channels = plan.taps["teacher"].channels
    constants = (32 * channels * (channels + 1) + 64 * 1000) * 4 / 1e6
    least = bytes_of(STUDENT) + bytes_of(TEACHER) + heads * 4 / 1e6 + constants
    assert least < plan.memory.weights_mb < least + 0.01
    assert plan.memory.gradients_mb == pytest.approx(trained)
    assert plan.memory.optimizer_mb == pytest.approx(values * trained)
    parts = plan.memory.model_dump(exclude={"total_mb"}).values()
    assert plan.memory.total_mb == pytest.approx(sum(parts))
    averaged = plan_of(tmp_path, f"train.optimizer={optimizer}", "train.ema_decay=0.99")
    assert averaged.memory.weights_mb == pytest.approx(2 * plan.memory.weights_mb - bytes_of(TEACHER), rel=1e-3)


def test_activations_grow_with_the_batch_and_the_image(tmp_path: Path) -> None:
    small = plan_of(tmp_path).memory.activations_mb
    # At least the input of the first convolution is kept: 32 images of 3x32x32 floats.
    assert small > 32 * 3 * 32 * 32 * 4 / 1e6
    assert plan_of(tmp_path, "train.batch_size=64").memory.activations_mb == pytest.approx(2 * small)
    larger = plan_of(tmp_path, "data.input_size=64").memory.activations_mb
    assert 2.5 * small < larger < 5 * small
    assert plan_of(tmp_path, "train.precision=bf16").memory.activations_mb == pytest.approx(small / 2)


def test_cross_entropy_alone_has_no_teacher_in_training(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "method.name=none")
    assert (plan.teacher, plan.taps, plan.training_only_parameters) == (None, {}, {})
    assert plan.memory.weights_mb == pytest.approx(bytes_of(STUDENT))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), "dskd (default preset)"),
        (("method.preset=paper",), "dskd (paper preset)"),
        (("method.name=kd",), "kd"),
    ],
)
def test_the_name_of_the_method(overrides: tuple[str, ...], expected: str, tmp_path: Path) -> None:
    assert plan_of(tmp_path, *overrides).method == expected


def test_where_it_would_write(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    assert plan.stages == list(SMALL_STAGES)
    assert plan.writes["weights"] == str(tmp_path / "run" / "student.safetensors")
    assert all(path.startswith(str(tmp_path / "run")) for path in plan.writes.values())


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("train.batch_size=400", DataError, "400"),
        ("train.optimizer=adamz", RecipeError, "adamz"),
        ("train.precision=fp16", EnvironmentProblem, "fp16"),
        ("data.augment.auto_augment=nonsense", RecipeError, "auto_augment"),
        ("student.name=test_resnext", ModelError, "test_resnext"),
        ("teacher.train=null", ModelError, "--teacher-checkpoint"),
    ],
)
def test_what_the_training_would_refuse_is_refused_now(
    override: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        make_plan(small_recipe(override, "train.device=cpu"), RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_as_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_of(tmp_path)
    print_plan(plan, Output(json_output=False))
    text = " ".join(capsys.readouterr().out.split())
    for expected in (
        "nothing is trained or written",
        "small",
        "359 training and 1438 validation images, 10 classes",
        f"{TEACHER}, {weights_of(TEACHER) / 1e6:.2f} M parameters",
        f"{STUDENT}, {weights_of(STUDENT) / 1e6:.2f} M parameters",
        "at 3x32x32",
        "only in training: projection",
        "22 (11 an epoch)",
        "train > distill > export > validate > benchmark > report",
        "memory, estimated",
    ):
        assert expected in text, expected
    print_plan(plan.model_copy(update={"train_images": None, "teacher": None}), Output(json_output=False))
    text = capsys.readouterr().out
    assert "? training and 1438" in text
    assert TEACHER not in text


def test_pieces_and_recomputing_save_activations(tmp_path: Path) -> None:
    plain = plan_of(tmp_path).memory
    pieces = plan_of(tmp_path, "train.grad_accumulation=4").memory
    assert pieces.activations_mb == pytest.approx(plain.activations_mb / 4)
    recomputed = plan_of(tmp_path, "train.grad_checkpointing=true").memory
    assert recomputed.activations_mb < 0.8 * plain.activations_mb
    assert recomputed.weights_mb == plain.weights_mb
