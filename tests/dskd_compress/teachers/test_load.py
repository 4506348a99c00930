from __future__ import annotations

from pathlib import Path

import pytest
import torch
from run_support import Finished, small_recipe
from support import make_model

from dskd_compress.data import open_data
from dskd_compress.models import state_sha256
from dskd_compress.run_folder import RunFolder
from dskd_compress.stages.setup import create_student, make_pair, open_checked_data
from dskd_compress.teachers.load import load_teacher
from dskd_compress.weights import load_trained, save_weights
from dskd_export.errors import CheckpointError


def test_the_trained_teacher(finished: Finished) -> None:
    teacher = load_teacher(finished.recipe, finished.folder, open_checked_data(finished.recipe))
    assert teacher.weights == "trained by this run"
    assert not teacher.model.training
    student, format = create_student(finished.recipe, 10)
    assert teacher.format == format
    pair = make_pair(student, format, teacher)
    images_BCHW = torch.randn(2, 3, 32, 32)
    assert pair.adapter()(images_BCHW) is images_BCHW  # nothing to adapt


def test_a_foreign_checkpoint_has_the_normalisation_of_timm(tmp_path: Path) -> None:
    model = make_model("test_resnet")
    path = tmp_path / "mine.pth"
    torch.save(model.state_dict(), path)
    recipe = small_recipe(f"teacher.checkpoint={path}", "teacher.train=null", "data.mean=[0.1, 0.1, 0.1]")
    teacher = load_teacher(recipe, RunFolder(tmp_path), open_data(recipe.data, 0))
    assert state_sha256(teacher.model) == state_sha256(model)
    assert teacher.format.mean == model.default_cfg["mean"] != (0.1, 0.1, 0.1)
    assert (teacher.format.input_size, teacher.weights) == ((3, 32, 32), "checkpoint mine.pth")


def test_weights_of_another_run_keep_their_size(finished: Finished, tmp_path: Path) -> None:
    """A ViT that was trained at 32 px is built for 32 px, whatever this recipe says."""
    source = finished.folder / "teacher.safetensors"
    recipe = small_recipe(f"teacher.checkpoint={source}", "teacher.train=null", "data.input_size=64")
    teacher = load_teacher(recipe, RunFolder(tmp_path), open_data(recipe.data, 0))
    assert teacher.format.input_size == (3, 32, 32)


@pytest.mark.parametrize(("own", "other"), [("apply", "ignore"), ("ignore", "apply"), ("apply", "apply")])
def test_a_teacher_that_saw_photos_turned_the_other_way(
    finished: Finished, tmp_path: Path, own: str, other: str
) -> None:
    model, info = load_trained(finished.folder / "teacher.safetensors")
    save_weights(tmp_path / "t.safetensors", model.state_dict(), info.model_copy(update={"exif": own}))
    start = f"teacher.checkpoint={tmp_path / 't.safetensors'}"
    recipe = small_recipe("teacher.train=null", start, f"data.exif={other}")
    notes = load_teacher(recipe, RunFolder(tmp_path), open_data(recipe.data, 0)).notes
    assert [f"--set data.exif={own}" in note for note in notes] == ([] if own == other else [True])


def test_weights_of_another_architecture(finished: Finished, tmp_path: Path) -> None:
    source = finished.folder / "student.safetensors"
    recipe = small_recipe(f"teacher.checkpoint={source}", "teacher.train=null")
    with pytest.raises(CheckpointError, match="test_resnet"):
        load_teacher(recipe, RunFolder(tmp_path), open_data(recipe.data, 0))


def test_a_teacher_of_other_classes(tmp_path: Path) -> None:
    torch.save(make_model("test_resnet").state_dict(), tmp_path / "ten.pth")
    recipe = small_recipe(
        f"teacher.checkpoint={tmp_path / 'ten.pth'}", "teacher.train=null", "teacher.kwargs.num_classes=11"
    )
    with pytest.raises(CheckpointError, match=r"fc\.weight|fc\.bias"):
        load_teacher(recipe, RunFolder(tmp_path), open_data(recipe.data, 0))
