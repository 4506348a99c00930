from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from run_support import small_recipe

from dskd_compress.console import Output
from dskd_compress.models import state_sha256
from dskd_compress.stages.setup import (
    create_student,
    create_untrained_teacher,
    decide_student_start,
    open_checked_data,
)
from dskd_export.errors import DataError, RecipeError

OWN_FORMAT = "data={source: digits, workers: 0}"


def test_the_student_is_the_same_for_the_same_seed() -> None:
    torch.manual_seed(123)
    first, _ = create_student(small_recipe(), 10)
    torch.rand(5)
    again, _ = create_student(small_recipe(), 10)
    other, _ = create_student(small_recipe("seed=1"), 10)
    assert state_sha256(first) == state_sha256(again) != state_sha256(other)


def test_random_batch_norm_is_not_frozen_where_the_weights_cannot_be_had() -> None:
    recipe = small_recipe("student.pretrained=auto", "train.freeze_batch_norm=true")
    with pytest.raises(RecipeError, match=r"train\.freeze_batch_norm") as caught:
        decide_student_start(recipe)
    assert "--student-checkpoint FILE" in str(caught.value.hint)


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
