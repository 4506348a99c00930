from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from run_support import QUIET, STEPS, Finished, records, small_recipe
from safetensors.torch import load_file, save_file

from dskd_compress.run_folder import DISTILL, EXPORT, TRAIN, RunFolder
from dskd_compress.stages.setup import open_checked_data
from dskd_compress.stages.train import run_train
from dskd_compress.teachers.load import load_teacher
from dskd_compress.timm_import import import_timm
from dskd_compress.weights import load_trained
from dskd_export.documents.base import read_document
from dskd_export.documents.training import TrainingDocument
from dskd_export.errors import DataError, ModelError, RecipeError


def test_the_teacher_is_a_plain_timm_model(finished: Finished) -> None:
    model = import_timm().create_model("test_resnet", num_classes=10)
    model.load_state_dict(load_file(finished.folder / "teacher.safetensors"), strict=True)
    loaded, info = load_trained(finished.folder / "teacher.safetensors")
    assert (info.name, info.input_size, len(info.classes)) == ("test_resnet", (3, 32, 32), 10)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_its_document(finished: Finished) -> None:
    document = read_document(finished.folder / "teacher.json", TrainingDocument)
    assert (document.role, document.method, document.teacher, document.taps) == ("teacher", "none", None, {})
    assert (document.epochs, document.steps, document.discarded) == (2, STEPS, {})
    assert document.model.name == "test_resnet"
    weights = (finished.folder / "teacher.safetensors").read_bytes()
    assert document.model.sha256 == hashlib.sha256(weights).hexdigest()
    assert document.teacher_accuracy is None
    assert document.images_per_s > 0
    assert document.peak_memory_mb is not None


def test_its_log(finished: Finished) -> None:
    lines = records(finished.folder / "teacher.train.jsonl")
    steps = [line for line in lines if line["kind"] == "step"]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    assert all(set(line["losses"]) == {"loss", "ce"} for line in steps)
    ends = [line for line in lines if line["kind"] == "epoch"]
    document = read_document(finished.folder / "teacher.json", TrainingDocument)
    assert [line["epoch"] for line in ends] == [0, 1]
    assert max(line["top1"] for line in ends) == document.best.top1.value
    assert ends[-1]["top1"] == document.last.top1.value


def test_a_recipe_that_trains_no_teacher(finished: Finished) -> None:
    folder = RunFolder(finished.folder.path.parent / "never")
    with pytest.raises(RecipeError, match=r"teacher\.train.*teacher\.fit=all"):
        run_train(small_recipe("teacher.train=null"), folder, QUIET)
    assert not folder.path.exists()


def test_too_few_images_for_a_batch(finished: Finished) -> None:
    folder = RunFolder(finished.folder.path.parent / "too-few")
    with pytest.raises(DataError, match=r"359 .* 400") as caught:
        run_train(small_recipe("teacher.train.batch_size=400", "train.batch_size=8"), folder, QUIET)
    assert not folder.path.exists()
    # The key of the training at hand: the student's changes nothing here.
    assert str(caught.value.hint).endswith(" --set teacher.train.batch_size=256")


@pytest.fixture(scope="module")
def encoder(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of the trained teacher without its classifier."""
    state = load_file(finished.folder / "teacher.safetensors")
    path = tmp_path_factory.mktemp("start") / "encoder.safetensors"
    save_file({name: value for name, value in state.items() if "fc." not in name}, path)
    return path


def train_encoder(encoder: Path, folder: Path, *overrides: str) -> tuple[TrainingDocument, set[str]]:
    """Train from the encoder for two epochs; returns the document and what changed in the weights."""
    recipe = small_recipe(f"teacher.checkpoint={encoder}", "teacher.kwargs={num_classes: 1000}", *overrides)
    document = run_train(recipe, RunFolder(folder), QUIET)
    before, after = load_file(encoder), load_file(folder / "teacher.safetensors")
    kept = {name for name, value in before.items() if torch.equal(value, after[name])}
    loaded = load_teacher(recipe, RunFolder(folder), open_checked_data(recipe))
    assert loaded.weights == document.model.weights
    assert loaded.format.mean == load_trained(folder / "teacher.safetensors")[1].mean
    return document, after.keys() - kept


def test_the_head_alone_is_trained(encoder: Path, tmp_path: Path) -> None:
    """And it learns: the features are those of a teacher of these digits."""
    document, changed = train_encoder(
        encoder,
        tmp_path,
        "teacher.fit=head",
        "teacher.train={epochs: 4, batch_size: 32, optimizer: adamw, lr: 0.05, threads: 1}",
    )
    assert changed == {"fc.weight", "fc.bias"}
    assert document.teacher_fit == "head"
    assert document.model.weights == "checkpoint encoder.safetensors, classifier trained by this run"
    assert document.best.top1.low > 0.3  # chance is 0.1
    lines = records(tmp_path / "teacher.train.jsonl")
    losses = [line["losses"]["loss"] for line in lines if line["kind"] == "step"]
    epoch = len(losses) // 4
    assert sum(losses[-epoch:]) < 0.7 * sum(losses[:epoch])


def test_all_of_it_is_trained_but_frozen_batch_norms(encoder: Path, tmp_path: Path) -> None:
    document, changed = train_encoder(encoder, tmp_path / "all", "teacher.fit=all", "teacher.train.epochs=1")
    assert document.teacher_fit == "all"
    assert changed >= {"conv1.0.weight", "bn1.weight", "bn1.running_mean", "fc.weight"}
    _, changed = train_encoder(
        encoder,
        tmp_path / "frozen",
        "teacher.fit=all",
        "teacher.train.epochs=1",
        "teacher.train.freeze_batch_norm=true",
    )
    assert {"conv1.0.weight", "fc.weight"} <= changed
    norms = [name for name in load_file(encoder) if "bn" in name or "downsample.2" in name]
    assert len(norms) > 20
    assert not changed & set(norms)


def test_a_head_on_random_features_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no weights") as caught:
        run_train(small_recipe("teacher.fit=head"), RunFolder(tmp_path / "run"), QUIET)
    assert "teacher.fit=all" in str(caught.value.hint)
    assert not (tmp_path / "run" / "teacher.json").exists()


def test_a_longer_or_another_training_is_noticed(finished: Finished) -> None:
    """Runs from before these keys stay up to date; the keys make a stage run again."""
    folder, recipe = finished.folder, finished.recipe
    assert folder.why_rerun(TRAIN, recipe) is None
    assert folder.why_rerun(TRAIN, small_recipe("teacher.fit=all")) is None
    assert folder.why_rerun(TRAIN, small_recipe("teacher.fit=head")) == "teacher changed in the recipe"
    frozen = recipe.train.model_copy(update={"freeze_batch_norm": True})
    teacher = recipe.teacher.model_copy(update={"train": frozen})
    other = recipe.model_copy(update={"teacher": teacher, "train": frozen})
    assert folder.why_rerun(TRAIN, other) == "teacher changed in the recipe"
    assert folder.why_rerun(DISTILL, other) == "train changed in the recipe"


def test_a_teacher_that_was_trained_and_is_not_used_is_noticed(finished: Finished) -> None:
    """The student was distilled from other weights than the recipe now names."""
    ready = small_recipe().teacher.model_copy(update={"fit": "none", "train": None})
    recipe = finished.recipe.model_copy(update={"teacher": ready})
    for stage in (DISTILL, EXPORT):
        assert finished.folder.why_rerun(stage, recipe) == "teacher.safetensors changed"
