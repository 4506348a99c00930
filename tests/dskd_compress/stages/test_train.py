from __future__ import annotations

import hashlib

import pytest
import torch
from run_support import QUIET, STEPS, Finished, records, small_recipe
from safetensors.torch import load_file

from dskd_compress.run_folder import RunFolder
from dskd_compress.stages.train import run_train
from dskd_compress.timm_import import import_timm
from dskd_compress.weights import load_trained
from dskd_export.documents.base import read_document
from dskd_export.documents.training import TrainingDocument
from dskd_export.errors import DataError, RecipeError


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
    with pytest.raises(RecipeError, match=r"teacher\.train.*distill"):
        run_train(small_recipe("teacher.train=null"), folder, QUIET)
    assert not folder.path.exists()


def test_too_few_images_for_a_batch(finished: Finished) -> None:
    folder = RunFolder(finished.folder.path.parent / "too-few")
    with pytest.raises(DataError, match=r"359 .* 400") as caught:
        run_train(small_recipe("teacher.train.batch_size=400", "train.batch_size=8"), folder, QUIET)
    assert not folder.path.exists()
    # The key of the training at hand: the student's changes nothing here.
    assert str(caught.value.hint).endswith(" --set teacher.train.batch_size=256")
