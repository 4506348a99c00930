from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from run_support import Finished, small_recipe
from support import make_model

from dskd_compress.console import Output
from dskd_compress.data import open_data
from dskd_compress.models import state_sha256
from dskd_compress.run_folder import RunFolder
from dskd_compress.stages.setup import (
    check_classes,
    create_student,
    create_untrained_teacher,
    load_teacher,
    make_pair,
    open_checked_data,
)
from dskd_export.errors import CheckpointError, DataError

OWN_FORMAT = "data={source: digits, workers: 0}"


def test_the_student_is_the_same_for_the_same_seed() -> None:
    torch.manual_seed(123)
    first, _ = create_student(small_recipe(), 10)
    torch.rand(5)
    again, _ = create_student(small_recipe(), 10)
    other, _ = create_student(small_recipe("seed=1"), 10)
    assert state_sha256(first) == state_sha256(again) != state_sha256(other)


def test_what_the_recipe_does_not_say_is_the_students_own() -> None:
    """Also for a teacher that is trained here: it sees the images that it will be asked about."""
    recipe = small_recipe(OWN_FORMAT, "teacher.name=resnet18", "student.name=test_efficientnet")
    student, format = create_student(recipe, 10)
    assert format.input_size == (3, 160, 160)
    teacher, of_teacher = create_untrained_teacher(recipe, 10)
    assert of_teacher == format
    assert teacher.default_cfg["input_size"] == (3, 224, 224)
    assert student.num_classes == teacher.num_classes == 10


def test_a_teacher_of_fixed_size_is_built_for_the_student() -> None:
    recipe = small_recipe("teacher.name=test_vit", "data.input_size=32")
    teacher, format = create_untrained_teacher(recipe, 10)
    assert format.input_size == (3, 32, 32)
    assert teacher(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_what_the_recipe_says_wins() -> None:
    recipe = small_recipe("data.mean=[0.1, 0.2, 0.3]", "data.crop_pct=0.5", "data.interpolation=nearest")
    for create in (create_student, create_untrained_teacher):
        _, format = create(recipe, 10)
        assert (format.mean, format.crop_pct, format.interpolation) == ((0.1, 0.2, 0.3), 0.5, "nearest")


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
    with pytest.raises(CheckpointError, match=r"ten\.pth"):
        load_teacher(recipe, RunFolder(tmp_path), open_data(recipe.data, 0))


def test_classes_that_differ(tmp_path: Path) -> None:
    sets = open_data(small_recipe().data, 0)
    check_classes(tuple("0123456789"), sets, tmp_path / "w", "train")
    for classes in (tuple("9876543210"), tuple("012345678"), ()):
        with pytest.raises(DataError, match=r"w .*digits.*--set data\.source.*dskd-compress train"):
            check_classes(classes, sets, tmp_path / "w", "train")
    (tmp_path / "recipe.yaml").write_text("of a run")  # which the line to paste then names
    with pytest.raises(DataError) as caught:
        check_classes((), sets, tmp_path / "w", "distill")
    assert str(caught.value.hint).endswith(f"dskd-compress distill {tmp_path}")


def test_data_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        open_checked_data(small_recipe(f"data.source={tmp_path}"))


def test_what_the_scan_leaves_out_is_shown_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").touch()
        for number in range(2):
            Image.new("RGB", (4, 4)).save(tmp_path / name / f"{number}.png")
    output = Output(json_output=False)
    for _ in range(2):
        open_checked_data(small_recipe(f"data.source={tmp_path}"), output)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{tmp_path}: left out 2 files with no image suffix (.txt)"]
