"""What the teacher is fed is printed, tried against the usual normalisations, and set by two keys."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from diagnosis_support import FORMAT, train_teacher
from run_support import small_recipe
from safetensors.torch import save_file

from dskd_compress.config import Recipe
from dskd_compress.console import Output
from dskd_compress.data import open_data
from dskd_compress.recipe import recipe_from_mapping
from dskd_compress.run_folder import DISTILL, RunFolder
from dskd_compress.stages.distill import run_distill
from dskd_compress.stages.setup import create_student, make_pair
from dskd_compress.teachers.load import load_teacher
from dskd_compress.teachers.normalisation import compare_normalisations
from dskd_compress.training.diagnosis.paired import probably_better
from dskd_export.documents.training import TrainingDocument
from dskd_export.errors import RecipeError

SMALL = ("train.epochs=1", "teacher.train=null", "method={name: kd}")
WRONG = ("teacher.mean=[0, 0, 0]", "teacher.std=[1, 1, 1]")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a teacher that was trained with Inception's normalisation, in a file that does not say so."""
    assert FORMAT.mean == FORMAT.std == (0.5,) * 3
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    save_file(train_teacher().trained.state_dict(), path)
    return path


def recipe_of(weights: Path, *more: str) -> Recipe:
    return small_recipe(f"teacher.checkpoint={weights}", *SMALL, *more)


@pytest.fixture(scope="module")
def wrongly_fed(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingDocument, RunFolder]:
    folder = RunFolder(tmp_path_factory.mktemp("wrong") / "run")
    return run_distill(recipe_of(weights, *WRONG), folder, Output(json_output=True)), folder


def test_a_wrong_normalisation_is_found_before_the_training(
    wrongly_fed: tuple[TrainingDocument, RunFolder],
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    document, _ = wrongly_fed
    assert document.findings is not None
    (finding,) = (finding for finding in document.findings if finding.step == 0)
    assert (finding.kind, finding.term, finding.severity) == ("teacher_input", "normalisation", "warning")
    assert "Inception's" in finding.seen
    words = shlex.split(finding.cure.removeprefix("Add to the command: "))
    assert words[::2] == ["--set", "--set"]
    capsys.readouterr()
    mended = run_distill(recipe_of(weights, *words[1::2]), RunFolder(tmp_path / "run"), Output(json_output=False))
    printed = capsys.readouterr()
    assert mended.findings == []
    assert "fed 32 px, mean 0.5 0.5 0.5, std 0.5 0.5 0.5 (teacher.mean and teacher.std)" in printed.out
    assert mended.teacher_accuracy is not None
    assert document.teacher_accuracy is not None
    assert mended.teacher_accuracy.top1.value > document.teacher_accuracy.top1.value + 0.03


def test_a_fitted_classifier_hides_no_wrong_normalisation(weights: Path, tmp_path: Path) -> None:
    """It was fitted to the wrong one, so another is tried with a classifier of its own."""
    wrong = ("teacher.mean=[0.9, 0.9, 0.9]", "teacher.std=[0.02, 0.02, 0.02]", "teacher.fit=probe")
    document = run_distill(recipe_of(weights, *wrong), RunFolder(tmp_path / "run"), Output(json_output=True))
    assert document.teacher_probe is not None
    (finding,) = (finding for finding in document.findings or () if finding.step == 0)
    assert (finding.kind, finding.term) == ("teacher_input", "normalisation")
    words = shlex.split(finding.cure.removeprefix("Add to the command: "))[1::2]
    mended = run_distill(
        recipe_of(weights, *words, "teacher.fit=probe"), RunFolder(tmp_path / "mended"), Output(json_output=True)
    )
    assert mended.findings == []
    assert mended.teacher_accuracy is not None
    assert document.teacher_accuracy is not None
    assert mended.teacher_accuracy.top1.value > document.teacher_accuracy.top1.value


def test_the_student_is_the_same_without_the_check(
    wrongly_fed: tuple[TrainingDocument, RunFolder], weights: Path, tmp_path: Path
) -> None:
    _, folder = wrongly_fed
    alone = RunFolder(tmp_path / "run")
    document = run_distill(recipe_of(weights, *WRONG, "diagnosis.enabled=false"), alone, Output(json_output=True))
    assert document.findings is None
    assert alone.weights("student").read_bytes() == folder.weights("student").read_bytes()


def test_no_random_number_is_drawn_and_a_right_one_is_left_alone(weights: Path, tmp_path: Path) -> None:
    recipe = recipe_of(weights, "teacher.mean=[0.5, 0.5, 0.5]", "teacher.std=[0.5, 0.5, 0.5]")
    sets = open_data(recipe.data, 0)
    student, format = create_student(recipe, 10)
    pair = make_pair(student, format, load_teacher(recipe, RunFolder(tmp_path), sets))
    torch.manual_seed(7)
    np.random.seed(7)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    assert compare_normalisations(sets, pair, CPU) is None
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


def test_the_keys_are_part_of_what_a_stage_depends_on(weights: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    choices: tuple[tuple[str, ...], ...] = ((), WRONG, WRONG[:1], WRONG[1:])
    digests = {folder.settings_digest(DISTILL, recipe_of(weights, *more), {}) for more in choices}
    assert len(digests) == 4


def test_a_teacher_that_is_trained_here_has_no_normalisation_of_its_own() -> None:
    with pytest.raises(RecipeError, match=r"data\.mean"):
        recipe_from_mapping({"teacher": {"name": "a", "train": {}, "mean": [0, 0, 0]}, "student": {"name": "b"}})


@pytest.mark.parametrize(
    ("images", "gained", "lost", "better"),
    [
        (256, 26, 0, True),
        (256, 30, 4, True),
        (256, 7, 0, False),
        (256, 40, 32, False),
        (40, 20, 0, False),
        (48, 8, 0, False),
        (48, 9, 0, True),
    ],
)
def test_when_another_one_is_better(images: int, gained: int, lost: int, better: bool) -> None:
    before = np.zeros(images, dtype=bool)
    after = np.zeros(images, dtype=bool)
    before[:lost] = True
    after[lost : lost + gained] = True
    assert probably_better(before, after, 4) == better
    assert not probably_better(after, before, 4)
