from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from run_support import QUIET, STEPS, Finished, records, small_recipe
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits

from dskd_compress.console import Output
from dskd_compress.dashboard.watch import find_training, watch
from dskd_compress.data import ValLoader, open_data
from dskd_compress.methods.base import StepContext
from dskd_compress.models import state_sha256
from dskd_compress.run_folder import DISTILL, RunFolder
from dskd_compress.stages import distill, setup
from dskd_compress.stages.distill import run_distill
from dskd_compress.timm_import import import_timm
from dskd_compress.training.loop import Trainer
from dskd_compress.weights import load_trained
from dskd_export.documents.base import Accuracy, StageRecord, read_document
from dskd_export.documents.training import TrainingDocument
from dskd_export.errors import DataError, DiagnosisError, ModelError, TrainingDiverged


@pytest.fixture(scope="module")
def document(finished: Finished) -> TrainingDocument:
    return read_document(finished.folder / "distill.json", TrainingDocument)


def measured(path: Path, finished: Finished) -> float:
    """Top-1 on the validation set, by numpy."""
    model, info = load_trained(path)
    loader = ValLoader(
        open_data(finished.recipe.data, 0), info.preprocessing, batch_size=500, device="cpu", workers=0
    )
    right = []
    with torch.no_grad():
        for images_BCHW, labels_B in loader:
            right.append(model(images_BCHW).numpy().argmax(1) == labels_B.numpy())
    return float(np.concatenate(right).mean())


def test_the_student_is_a_plain_timm_model(finished: Finished) -> None:
    tensors = load_file(finished.folder / "student.safetensors")
    model = import_timm().create_model("test_efficientnet", num_classes=10)
    assert set(tensors) == set(model.state_dict())
    model.load_state_dict(tensors, strict=True)


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_the_accuracies_are_those_of_the_weights(
    role: str, finished: Finished, document: TrainingDocument
) -> None:
    accuracy: Accuracy | None = document.best if role == "student" else document.teacher_accuracy
    assert accuracy is not None
    assert accuracy.top1.value == pytest.approx(measured(finished.folder.weights(role), finished))
    assert accuracy.images == document.data.val_images == 1438


def test_the_teacher_was_not_changed(finished: Finished, document: TrainingDocument) -> None:
    trained = read_document(finished.folder / "teacher.json", TrainingDocument)
    weights = (finished.folder / "teacher.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == trained.model.sha256
    model, _ = load_trained(finished.folder / "teacher.safetensors")
    assert document.teacher is not None
    assert document.teacher.sha256 == state_sha256(model)
    assert document.teacher_accuracy == trained.best


def test_a_teacher_that_changed_is_seen_at_the_end(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished.with_teacher(tmp_path)
    real = distill.train

    def spoil(task, *args, **kwargs):  # type: ignore[no-untyped-def]
        result = real(task, *args, **kwargs)
        task.teacher.model.bn1.running_mean += 1
        return result

    monkeypatch.setattr(distill, "train", spoil)
    with pytest.raises(DiagnosisError, match="teacher"):
        run_distill(small_recipe("train.epochs=1", "method.name=kd"), folder, QUIET)
    assert not (tmp_path / "student.safetensors").exists()


def test_a_healthy_run_has_no_findings(document: TrainingDocument, finished: Finished) -> None:
    assert document.findings == []
    looks = [line for line in records(finished.folder.log("student")) if line["kind"] == "diagnosis"]
    assert [look["step"] for look in looks] == [1, 2, 3, STEPS]
    assert not [line for line in records(finished.folder.log("teacher")) if line["kind"] == "diagnosis"]


def test_a_fault_ends_the_run_with_its_cure_and_stays_in_the_log(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished.with_teacher(tmp_path)
    real = distill.create_task

    def loose(*args, **kwargs):  # type: ignore[no-untyped-def]
        task = real(*args, **kwargs)
        task.teacher.model.requires_grad_(True)
        return task

    monkeypatch.setattr(distill, "create_task", loose)
    recipe = small_recipe("train.epochs=1", "method.name=kd")
    with pytest.raises(DiagnosisError, match=r"requires_grad_\(False\)"):
        run_distill(recipe, folder, QUIET)
    (line,) = records(folder.log("student"))
    assert line["findings"][0]["kind"] == "teacher_not_frozen"
    # The same command, told to go on.
    document = run_distill(small_recipe("train.epochs=1", "method.name=kd", "diagnosis.stop_on=[]"), folder, QUIET)
    assert document.findings is not None
    assert [finding.severity for finding in document.findings] == ["warning"]


def test_without_a_diagnosis_nothing_is_looked_for(finished: Finished, tmp_path: Path) -> None:
    folder = finished.with_teacher(tmp_path)
    document = run_distill(small_recipe("diagnosis.enabled=false"), folder, QUIET)
    assert document.findings is None
    assert {line["kind"] for line in records(folder.log("student"))} == {"step", "epoch"}
    assert (folder / "student.safetensors").read_bytes() == (finished.folder / "student.safetensors").read_bytes()


def test_the_document(document: TrainingDocument, finished: Finished) -> None:
    assert (document.role, document.method) == ("student", "dskd")
    assert document.method_settings == finished.recipe.method.model_dump(mode="json")
    assert (document.epochs, document.steps) == (2, STEPS)
    assert {role: tap.kind for role, tap in document.taps.items()} == {"teacher": "vector", "student": "vector"}
    assert set(document.discarded) == {"projection", "denoiser"}
    tensors = load_file(finished.folder / "student.safetensors")
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert document.model.parameters == sum(
        tensor.numel() for name, tensor in tensors.items() if not name.endswith(statistics)
    )
    weights = (finished.folder / "student.safetensors").read_bytes()
    assert document.model.sha256 == hashlib.sha256(weights).hexdigest()
    assert document.provenance.seed == finished.recipe.seed


def test_the_facts_of_the_data(document: TrainingDocument) -> None:
    """Counted from the data set itself: each class gives the rounded share of its images."""
    counts = np.bincount(load_digits().target)
    held_out = sum(int(count * 0.8 + 0.5) for count in counts)
    assert (document.data.train_images, document.data.val_images) == (1797 - held_out, held_out)
    assert document.data.classes == [str(digit) for digit in range(10)]
    assert document.data.skipped == []
    assert document.data.sha256_of == "content"


def test_the_log(finished: Finished, document: TrainingDocument) -> None:
    lines = records(finished.folder / "train.jsonl")
    steps = [line for line in lines if line["kind"] == "step"]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    assert {name for line in steps for name in line["losses"]} == {
        "loss",
        "ce",
        "diffusion",
        "lsh",
        "head",
        "logit",
    }
    for line in steps:
        terms = sum(value for name, value in line["losses"].items() if name != "loss")
        assert line["losses"]["loss"] == pytest.approx(terms, rel=1e-4)
    ends = [line for line in lines if line["kind"] == "epoch"]
    best = max(range(2), key=lambda epoch: ends[epoch]["top1"])
    assert (document.best_epoch, document.best.top1.value) == (best, ends[best]["top1"])
    assert [line["best"] for line in ends] == [True, best == 1]


def test_the_record(finished: Finished, document: TrainingDocument) -> None:
    record = read_document(finished.folder / "stages/distill.json", StageRecord)
    teacher = hashlib.sha256((finished.folder / "teacher.safetensors").read_bytes()).hexdigest()
    assert record.inputs == {"teacher.safetensors": teacher, "data": document.data.sha256}
    assert record.provenance == document.provenance


def test_the_recipe_lies_beside_it(finished: Finished) -> None:
    assert finished.folder.read_recipe() == finished.recipe


def test_distilling_again_gives_the_same_student(finished: Finished, tmp_path: Path) -> None:
    """And goes on from the last checkpoint, that is, has nothing left to train."""
    folder = finished.copy(tmp_path / "run")
    weights = (folder / "student.safetensors").read_bytes()
    log = (folder / "train.jsonl").read_text()
    (folder / "student.safetensors").unlink()
    run_distill(finished.recipe, folder, QUIET)
    assert (folder / "student.safetensors").read_bytes() == weights
    assert (folder / "train.jsonl").read_text() == log
    before, after = (
        json.loads((place / "distill.json").read_text()) for place in (finished.folder.path, folder.path)
    )
    for document in (before, after):
        del document["provenance"], document["peak_memory_mb"]
    assert after == before


def test_another_setting_starts_anew_and_cross_entropy_alone_needs_no_heads(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished.copy(tmp_path / "run")
    recipe = small_recipe("method.name=none", "train.epochs=1", "train.ema_decay=0.5")
    document = run_distill(recipe, folder, Output(json_output=False))
    assert f"the student of step {STEPS} (top-1 " in capsys.readouterr().err
    assert (document.method, document.steps, document.discarded, document.taps) == ("none", STEPS // 2, {}, {})
    assert document.teacher is not None  # it is still what the student is compared with
    steps = [line for line in records(folder / "train.jsonl") if line["kind"] == "step"]
    assert [line["step"] for line in steps] == list(range(1, STEPS // 2 + 1))
    assert all(set(line["losses"]) == {"loss", "ce"} for line in steps)
    old = load_file(finished.folder / "student.safetensors")
    new = load_file(folder / "student.safetensors")
    assert set(old) == set(new)
    assert any(not torch.equal(old[name], new[name]) for name in old)


def test_a_teacher_of_ones_own_weights(finished: Finished, tmp_path: Path) -> None:
    """As for a teacher that was trained elsewhere: the same weights by --teacher-checkpoint teach the same."""
    plain = tmp_path / "mine.safetensors"
    plain.write_bytes((finished.folder / "teacher.safetensors").read_bytes())
    recipe = small_recipe(f"teacher.checkpoint={plain}", "teacher.train=null", "train.epochs=1", "method.name=kd")
    document = run_distill(recipe, RunFolder(tmp_path / "run"), QUIET)
    assert document.teacher is not None
    assert document.teacher.weights == "checkpoint mine.safetensors"
    assert document.teacher_accuracy is not None
    trained = read_document(finished.folder / "teacher.json", TrainingDocument)
    # With the normalisation of that training, which the weights carry, and not timm's of the architecture.
    assert document.teacher_accuracy == trained.best
    record = read_document(tmp_path / "run/stages/distill.json", StageRecord)
    assert record.inputs["teacher.checkpoint"] == hashlib.sha256(plain.read_bytes()).hexdigest()


def test_a_teacher_that_was_not_trained_yet(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"teacher\.safetensors.*dskd-compress train"):
        run_distill(small_recipe(), RunFolder(tmp_path / "run"), QUIET)


def test_a_teacher_without_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"test_resnet.*--teacher-checkpoint"):
        run_distill(small_recipe("teacher.train=null"), RunFolder(tmp_path / "run"), QUIET)


def test_a_teacher_of_other_classes(finished: Finished, tmp_path: Path) -> None:
    """Nine digits: the trained teacher knows ten."""
    images = load_digits()
    few = images.target < 9
    np.savez(
        tmp_path / "nine.npz",
        x=(images.images[few] * 15).astype(np.uint8),
        y=images.target[few],
    )
    folder = finished.copy(tmp_path / "run")
    recipe = small_recipe(f"data.source={tmp_path / 'nine.npz'}")
    with pytest.raises(DataError, match=r"teacher\.safetensors.*--set data\.source"):
        run_distill(recipe, folder, QUIET)
    assert (folder / "student.safetensors").read_bytes() == (finished.folder / "student.safetensors").read_bytes()


# --- what the student starts from


@pytest.mark.parametrize("there", [False, True])
def test_what_auto_decides_is_kept_in_the_run(
    there: bool,
    finished: Finished,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Pretrained where the weights can be had, else random with a warning; the run's recipe keeps the decision."""
    overlay: dict[str, object] = {}
    if there:
        torch.manual_seed(9)
        save_file(import_timm().create_model("test_efficientnet").state_dict(), tmp_path / "hub.safetensors")
        overlay = {"pretrained_cfg_overlay": {"file": str(tmp_path / "hub.safetensors")}}
    recipe = small_recipe("train.epochs=1", "method.name=kd", "student.pretrained=auto")
    student = recipe.student.model_copy(update={"kwargs": overlay})
    recipe = recipe.model_copy(update={"student": student})
    folder = finished.with_teacher(tmp_path / "run")
    document = run_distill(recipe, folder, Output(json_output=False))
    kept = folder.read_recipe().student
    assert (document.start, kept.pretrained) == (("pretrained", True) if there else ("random", False))
    assert ("random weights" in capsys.readouterr().err) is not there
    assert folder.why_rerun(DISTILL, folder.keep_student_start(recipe)) is None
    # Later calls with the same recipe mean what was decided, and ask nobody.
    monkeypatch.setattr(setup, "create_model", lambda *a, **k: pytest.fail("decided twice"))
    assert setup.decide_student_start(folder.keep_student_start(recipe)) == (there, "")


def test_a_training_that_diverges_says_why_in_its_log_and_a_resumed_one_drops_that(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished.with_teacher(tmp_path / "run")
    real, seen = Trainer._forward_and_backward, list[object]()

    def forward(self: Trainer, context: StepContext, *images: Any) -> list[tuple[float, dict[str, Any]]]:
        results = real(self, context, *images)
        seen.append(context)
        if len(seen) == STEPS // 2 + 3:
            results[0][1]["loss"] = results[0][1]["loss"] * float("nan")
        return results

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_forward_and_backward", forward)
        with pytest.raises(TrainingDiverged):
            run_distill(finished.recipe, folder, QUIET)
    training = find_training(folder, finished.recipe, None)
    course, state = watch(training, "run", Console(file=io.StringIO()), every_s=1.0, once=True)
    assert state == "stopped"
    assert course.fault is not None
    assert (course.fault.kind, course.fault.step) == ("diverged", STEPS // 2 + 3)
    assert "nan" in course.fault.seen
    assert "train.lr" in course.fault.cure
    run_distill(finished.recipe, folder, QUIET)
    assert records(folder.log("student")) == records(finished.folder.log("student"))
