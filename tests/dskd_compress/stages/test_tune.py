from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from run_support import QUIET, Finished, small_recipe
from safetensors.torch import load_file

from dskd_compress.run_folder import RunFolder
from dskd_compress.stages import tune
from dskd_compress.stages.tune import run_tune, tuning_section
from dskd_compress.weights import load_trained, save_weights
from dskd_export.documents.base import read_document
from dskd_export.documents.training import TrainingDocument
from dskd_export.errors import DataError, Interrupted, UsageError
from dskd_export.files.atomic import sha256_file

RECIPE = ("tune.epochs=1", "tune.calibration_batches=2")


@pytest.fixture(scope="module")
def tuned(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    path = tmp_path_factory.mktemp("tuned") / "run"
    shutil.copytree(finished.folder.path, path)
    run_tune(small_recipe(*RECIPE), RunFolder(path), QUIET)
    return RunFolder(path)


def test_the_tuned_student_is_a_plain_timm_model_with_other_weights(tuned: RunFolder) -> None:
    before, after = (load_file(tuned / name) for name in ("student.safetensors", "student.int8.safetensors"))
    assert list(before) == list(after)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    model, info = load_trained(tuned / "student.int8.safetensors")
    assert model(torch.zeros(2, *info.input_size)).shape == (2, 10)


def test_the_student_itself_stays_as_it_is(tuned: RunFolder, finished: Finished) -> None:
    assert sha256_file(tuned / "student.safetensors") == sha256_file(finished.folder / "student.safetensors")


def test_the_training_only_modules_resume_from_the_distillation_and_the_same_tuning_gives_the_same_student(
    tuned: RunFolder, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    took: list[bool] = []
    real = tune._take_heads
    monkeypatch.setattr(tune, "_take_heads", lambda *arguments: took.append(real(*arguments)) or took[-1])
    shutil.copytree(finished.folder.path, tmp_path / "run")
    run_tune(small_recipe(*RECIPE), RunFolder(tmp_path / "run"), QUIET)
    name = "student.int8.safetensors"
    assert sha256_file(tmp_path / "run" / name) == sha256_file(tuned / name)
    shutil.rmtree(tmp_path / "run/checkpoint")
    run_tune(small_recipe(*RECIPE), RunFolder(tmp_path / "run"), QUIET)
    assert took == [True, False]


def test_interrupted_it_goes_on_to_the_same_student(
    tuned: RunFolder, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dskd_compress.training.loop import Trainer

    shutil.copytree(finished.folder.path, tmp_path / "run")
    folder, recipe = RunFolder(tmp_path / "run"), small_recipe(*RECIPE)
    real = Trainer._stop_if_requested

    def stop_early(self: Trainer, stop: object) -> None:
        if self.progress.step == 4:
            self.save()
            raise Interrupted("stopped", None)
        real(self, stop)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_stop_if_requested", stop_early)
        with pytest.raises(Interrupted):
            run_tune(recipe, folder, QUIET)
    run_tune(recipe, folder, QUIET)
    name = "student.int8.safetensors"
    assert sha256_file(folder / name) == sha256_file(tuned / name)


def test_the_tuning_of_another_student_is_not_gone_on_with(tuned: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(tuned.path, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    weights = load_file(folder / "student.safetensors")
    name = next(name for name, tensor in weights.items() if tensor.ndim == 4)
    _, info = load_trained(folder / "student.safetensors")
    save_weights(folder / "student.safetensors", {**weights, name: weights[name] * 1.5}, info)
    run_tune(small_recipe(*RECIPE), folder, QUIET)
    after = "student.int8.safetensors"
    assert sha256_file(folder / after) != sha256_file(tuned / after)


def test_its_document_says_what_was_trained(tuned: RunFolder) -> None:
    document = read_document(tuned / "tune.json", TrainingDocument)
    assert document.method_settings["tune"]["precision"] == "int8"
    assert document.model.sha256 == sha256_file(tuned / "student.int8.safetensors")
    assert document.model.parameters == read_document(tuned / "distill.json", TrainingDocument).model.parameters
    assert document.epochs == 1


def test_it_trains_gently() -> None:
    recipe = small_recipe("tune={}", "train.ema_decay=0.9", "train.warmup_epochs=1")
    assert recipe.tune is not None
    section = tuning_section(recipe, recipe.tune)
    assert section.lr == pytest.approx(recipe.train.lr / 100)
    assert (section.epochs, section.warmup_epochs, section.ema_decay) == (2, 0, None)


def test_without_a_section_or_a_student(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"tune\.epochs"):
        run_tune(small_recipe(), RunFolder(tmp_path), QUIET)
    with pytest.raises(DataError, match=r"student\.safetensors"):
        run_tune(small_recipe("tune={}"), RunFolder(tmp_path), QUIET)
