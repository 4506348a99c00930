"""Each step from the one fact that it is derived from, and nothing where that fact is missing."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from export_document_support import make_export_document, make_int8, make_search

from dskd_export.documents.base import Accuracy, Interval
from dskd_export.documents.export import LayerSensitivity
from dskd_export.documents.training import Finding
from dskd_export.report import build_report
from dskd_export.report.load import History, Run, load_run
from dskd_export.report.next_steps import list_next_steps


@pytest.fixture
def run(make_run: Callable[..., Path]) -> Run:
    """A student far below its teacher of whose training nothing stands out."""
    folder = make_run(
        images=150,
        student_right=94,
        teacher_right=144,
        student_drop=0.02,
        start="pretrained",
        train_right=0.66,
        student_epochs=3,
    )
    return replace(load_run(folder), benchmark=None)


def commands(run: Run) -> list[str]:
    return [step.command for step in list_next_steps(run)]


def with_student(run: Run, **changes: object) -> Run:
    assert run.student is not None
    return replace(run, student=run.student.model_copy(update=changes))


def with_validation(run: Run, **changes: object) -> Run:
    assert run.validation is not None
    return replace(run, validation=run.validation.model_copy(update=changes))


def test_random_weights(run: Run) -> None:
    (step, *_) = list_next_steps(with_student(run, start="random"))
    assert step.command.endswith(" --set student.pretrained=true")
    assert "1,437 images" in step.fact
    # Of a model that timm has no weights of, and of an older run, nothing is said.
    for changes in ({"pretrained_exists": False}, {"pretrained_exists": None}, {"start": None}):
        found = commands(with_student(run, **{"start": "random", **changes}))
        assert not any("student.pretrained" in command for command in found)


def test_a_command_takes_over_what_was_trained_here_into_a_folder_of_its_own(run: Run) -> None:
    (command, *_) = commands(with_student(run, start="random"))
    words = shlex.split(command)
    assert words[:3] == ["dskd-compress", "run", str(run.folder)]
    assert words[words.index("--out") + 1] == f"{run.folder}-pretrained"
    assert words[words.index("--teacher-checkpoint") + 1] == str(run.folder / "teacher.safetensors")
    assert "teacher.fit=none" in words
    ready = replace(with_student(run, start="random"), teacher=None)
    assert "--teacher-checkpoint" not in commands(ready)[0]


def rising(run: Run, *top1: float) -> Run:
    assert run.student_history is not None
    first = run.student_history.epochs[0]
    epochs = tuple(first.model_copy(update={"epoch": index, "top1": share}) for index, share in enumerate(top1))
    return replace(run, student_history=History(run.student_history.steps, epochs))


def test_an_accuracy_that_still_rises(run: Run) -> None:
    (step, *_) = list_next_steps(rising(run, 0.3, 0.4, 0.5, 0.52, 0.55, 0.58, 0.60, 0.64))
    assert "58.0\u00a0% to 64.0\u00a0% in the last 2 of 8 epochs" in step.fact
    assert step.command.endswith(" --epochs 16")
    for flat in ((0.3, 0.5, 0.6, 0.61, 0.62, 0.62, 0.62, 0.622), (0.3, 0.5, 0.7, 0.6), (0.1, 0.9)):
        assert not any("--epochs" in command for command in commands(rising(run, *flat)))


def test_overfitting_needs_a_gap_that_is_shown(run: Run) -> None:
    train = Accuracy(top1=Interval(value=0.99, low=0.96, high=0.998), images=150)
    (step, *_) = list_next_steps(with_validation(run, training_accuracy=train))
    assert "99.0\u00a0% of the training images" in step.fact
    assert "mixup" in step.command
    close = Accuracy(top1=Interval(value=0.68, low=0.6, high=0.75), images=150)
    assert not any("mixup" in one for one in commands(with_validation(run, training_accuracy=close)))
    assert not any("mixup" in one for one in commands(with_validation(run, training_accuracy=None)))


def test_a_student_that_cannot_even_learn_its_training_images(run: Run) -> None:
    (step,) = list_next_steps(run)
    assert step.command == "dskd-compress models suggest --teacher resnet18 --max-parameters 1.15"
    # Something else comes first where it is known.
    assert not any("suggest" in one for one in commands(with_student(run, start="random")))


def test_a_teacher_that_is_fed_wrongly_comes_first(run: Run) -> None:
    fault = Finding(
        kind="teacher_input",
        step=0,
        severity="warning",
        seen="Of 150 validation images the teacher is right on 90.",
        means="The teacher was trained with another normalisation than its images are given in.",
        cure="Add to the command: --set 'teacher.mean=[0.5, 0.5, 0.5]' --set 'teacher.std=[0.5, 0.5, 0.5]'",
    )
    found = list_next_steps(with_student(run, findings=[fault], start="random"))
    assert [step.kind for step in found] == ["teacher", "training"]
    assert shlex.split(found[0].command)[-4:] == [
        *("--set", "teacher.mean=[0.5, 0.5, 0.5]", "--set", "teacher.std=[0.5, 0.5, 0.5]")
    ]
    dead = fault.model_copy(update={"kind": "dead_term"})
    assert [step.kind for step in list_next_steps(with_student(run, findings=[dead]))] == ["training"]


def test_a_teacher_that_knows_nothing(make_run: Callable[..., Path]) -> None:
    folder = make_run(images=150, student_right=44, teacher_right=45, commonest=65, student_drop=0.02)
    (step, *_) = list_next_steps(load_run(folder))
    assert step.kind == "teacher"
    assert "30.0\u00a0%" in step.fact
    assert "43.3\u00a0%" in step.fact


def test_too_few_images(make_run: Callable[..., Path]) -> None:
    settings = {"images": 150, "student_right": 144, "teacher_right": 144, "commonest": 15, "student_drop": 0.01}
    run = load_run(make_run(**settings))
    (step, *_) = list_next_steps(run)
    assert "150 validation images are too few to prove the student; about 390 would do." in step.fact
    # Of 360 images 150 were used.
    assert step.advice == "Use all 360 of them, and add 30 more."
    assert step.command == f"dskd-compress run {run.folder} --set validate.images=null"
    assert run.validation is not None
    all_used = run.validation.data.model_copy(update={"val_images": 150})
    (step, *_) = list_next_steps(with_validation(run, data=all_used))
    assert step.advice == "Add 240 labelled images to the validation set."
    assert step.command == f"dskd-compress validate {run.folder}"
    # A student that fails is not saved by more images.
    failed = load_run(make_run(precisions=True, images=150, student_right=94, teacher_right=144))
    assert not any(step.kind == "images" for step in list_next_steps(failed))


def test_an_outlier_layer(make_run: Callable[..., Path]) -> None:
    run = load_run(make_run(precisions=True, start="pretrained"))
    kls = {"head.conv": 0.2, "stem": 0.03, "block": 0.02}
    layers = [LayerSensitivity(nodes=[name], kl=kl, kept=False) for name, kl in kls.items()]
    with_outlier = replace(run, export=make_export_document(make_int8(("stem",), make_search(layers))))
    step = next(one for one in list_next_steps(with_outlier) if one.kind == "precision")
    assert "head.conv causes 80\u00a0% of the error of int8" in step.fact
    assert shlex.split(step.command)[-1] == "export.quantize.keep=[stem, head.conv]"
    kept = [layers[0].model_copy(update={"kept": True}), *layers[1:]]
    even = [layer.model_copy(update={"kl": 0.1}) for layer in layers]
    for other in (kept, even, []):
        found = list_next_steps(replace(run, export=make_export_document(make_int8((), make_search(other)))))
        assert not any(one.kind == "precision" for one in found)


def timed(run: Run, int8: float, with_preprocessing: float) -> Run:
    """fp32 takes 1 ms on ONNX Runtime."""
    assert run.benchmark is not None
    row = next(
        one
        for one in run.benchmark.rows
        if (one.model, one.runner, one.batch, one.part) == ("student", "onnxruntime", 1, "engine")
    )
    assert row.latency is not None

    def takes(p50: float, **changes: object) -> object:
        latency = row.latency.model_copy(update={"p50_ms": p50})  # type: ignore[union-attr]
        return row.model_copy(update={"latency": latency, **changes})

    rows = [takes(1.0), takes(int8, precision="int8"), takes(with_preprocessing, part="with_preprocessing")]
    return replace(run, benchmark=run.benchmark.model_copy(update={"rows": rows}))


def test_speed(full_run: Path) -> None:
    run = with_student(load_run(full_run), start="pretrained")
    (slow,) = (step for step in list_next_steps(timed(run, 1.4, 1.1)) if step.kind == "speed")
    assert "int8 is 1.40× slower than fp32 here (1.40\u00a0ms against 1.00\u00a0ms)" in slow.fact
    assert slow.command == f"dskd-compress benchmark {run.folder} --profile"
    (share,) = (step for step in list_next_steps(timed(run, 1.01, 4.0)) if step.kind == "speed")
    assert "Preprocessing takes 75\u00a0% of a call (3.00\u00a0ms of 4.00\u00a0ms)" in share.fact
    assert not any(step.kind == "speed" for step in list_next_steps(timed(run, 0.9, 1.2)))


def test_a_student_that_keeps_up_with_its_teacher_is_not_trained_again(make_run: Callable[..., Path]) -> None:
    for right, advised in ((1430, False), (1425, True)):
        folder = make_run(images=1500, student_right=right, teacher_right=1430, student_drop=0.05, start="random")
        run = load_run(folder)
        assert run.validation is not None
        assert run.validation.student is not None
        assert run.validation.student.verdict == "PASS"
        assert any(step.kind == "training" for step in list_next_steps(run, most=9)) is advised


def test_nothing_is_said_where_nothing_is_measured(run: Run) -> None:
    empty = replace(run, student=None, teacher=None, student_history=None, validation=None, benchmark=None)
    assert list_next_steps(empty) == []
    assert list_next_steps(replace(run, validation=None)) == []


def test_three_at_most_and_both_forms_show_them(make_run: Callable[..., Path]) -> None:
    folder = make_run(images=150, student_right=94, teacher_right=144, student_drop=0.02)
    steps = list_next_steps(rising(load_run(folder), 0.3, 0.4, 0.5, 0.6), most=9)
    assert len(list_next_steps(rising(load_run(folder), 0.3, 0.4, 0.5, 0.6))) <= 3
    assert len(steps) >= 3
    report = build_report(folder)
    for step in list_next_steps(load_run(folder)):
        assert step.command in report.markdown
        assert "".join(f"<span>{word}</span>" for word in step.command.split(" ")[:1]) in report.html
