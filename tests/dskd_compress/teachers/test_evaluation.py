"""One teacher accuracy in a run: what `distill` prints is what `validate` measures; a known one is checked."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from diagnosis_support import train_teacher
from run_support import QUIET, Finished, small_recipe
from safetensors.torch import save_file

from dskd_compress.cli import main
from dskd_compress.console import Output
from dskd_compress.data import iter_images, open_data
from dskd_compress.run_folder import DISTILL, RunFolder
from dskd_compress.stages.distill import run_distill
from dskd_compress.stages.export import make_spec
from dskd_compress.teachers.evaluation import is_below_known
from dskd_compress.teachers.load import load_teacher
from dskd_compress.torch_reference import timm_batches
from dskd_compress.weights import load_trained
from dskd_export.documents.base import Accuracy, Interval
from dskd_export.errors import DiagnosisError

RIGHT = ("teacher.mean=[0.5, 0.5, 0.5]", "teacher.std=[0.5, 0.5, 0.5]")
WRONG = ("teacher.mean=[0, 0, 0]", "teacher.std=[1, 1, 1]")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    save_file(train_teacher().trained.state_dict(), path)
    return path


def keys(weights: Path, *more: str) -> tuple[str, ...]:
    return (f"teacher.checkpoint={weights}", "train.epochs=1", "teacher.train=null", "method={name: kd}", *more)


def test_distill_measures_the_teacher_as_validate_does(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = small_recipe(*keys(weights, *RIGHT, "teacher.crop_pct=0.6", "teacher.interpolation=nearest"))
    folder = RunFolder(tmp_path / "run")
    document = run_distill(recipe, folder, Output(json_output=False))
    assert document.teacher_accuracy is not None
    assert document.teacher_accuracy_as_fed is not None
    sets = open_data(recipe.data, 0)
    teacher = load_teacher(recipe, folder, sets)
    _, info = load_trained(folder.weights("student"))
    spec = make_spec(info, recipe.export, "0" * 64)
    right = []
    with torch.no_grad():
        for batch in timm_batches(iter_images(sets.val), info.preprocessing, spec, teacher.format):
            assert batch.teacher_input is not None
            logits = teacher.model(torch.from_numpy(batch.teacher_input))
            right.append(logits.argmax(1).numpy() == batch.labels)
    assert document.teacher_accuracy.top1.value == pytest.approx(float(np.concatenate(right).mean()))
    assert document.teacher_accuracy_as_fed.top1.value > document.teacher_accuracy.top1.value + 0.05
    printed = capsys.readouterr().out
    both = [document.teacher_accuracy, document.teacher_accuracy_as_fed]
    assert [f"top-1 {one.top1.value:.2%}" in printed for one in both] == [True, True]
    assert "crop 0.6" in printed
    assert "As the training feeds it" in printed


def test_a_teacher_that_is_fed_its_own_input_has_one_accuracy(finished: Finished) -> None:
    from dskd_export.documents.base import read_document
    from dskd_export.documents.training import TrainingDocument

    document = read_document(finished.folder / "distill.json", TrainingDocument)
    assert document.teacher_accuracy is not None
    assert (document.teacher_accuracy_as_fed, document.teacher_known_top1) == (None, None)


def test_a_teacher_clearly_below_what_is_known_is_refused_before_the_training(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The cure that is printed can be pasted, and then the same known accuracy holds."""
    folder = RunFolder(tmp_path / "run")
    known = small_recipe(*keys(weights, *RIGHT, "teacher.accuracy=0.5"))
    document = run_distill(known, folder, QUIET)
    assert document.teacher_accuracy is not None
    assert document.teacher_known_top1 == 0.5
    reached = document.teacher_accuracy.top1.value

    held = f"teacher.accuracy={reached:.4f}"
    with pytest.raises(DiagnosisError, match=r"teacher\.accuracy") as caught:
        run_distill(small_recipe(*keys(weights, *WRONG, held)), RunFolder(tmp_path / "wrong"), QUIET)
    assert caught.value.exit_code == 3
    assert not (tmp_path / "wrong" / "train.jsonl").exists()
    words = shlex.split(str(caught.value.hint).removeprefix("Add to the command: "))[1::2]
    run_distill(small_recipe(*keys(weights, *words, held)), RunFolder(tmp_path / "right"), QUIET)

    # Where the normalisation is right, the hint names what else may differ: first images far below timm's size.
    one = keys(weights, *RIGHT, "teacher.accuracy=1")
    with pytest.raises(DiagnosisError) as caught:
        run_distill(small_recipe(*one), RunFolder(tmp_path / "one"), QUIET)
    assert caught.value.hint == "Add to the command: --set teacher.input_size=160"
    # With its size given, all of its input, as options with the values of today, and its classes.
    with pytest.raises(DiagnosisError) as caught:
        run_distill(small_recipe(*one, "teacher.input_size=32"), RunFolder(tmp_path / "one"), QUIET)
    assert "--set teacher.input_size=32 --set teacher.crop_pct=" in str(caught.value.hint)
    assert "teacher.class_map=by_name" in str(caught.value.hint)
    # The classes of a classifier that is fitted on the data are those of the data.
    with pytest.raises(DiagnosisError) as caught:
        run_distill(
            small_recipe(*one, "teacher.input_size=32", "teacher.fit=probe"), RunFolder(tmp_path / "one"), QUIET
        )
    assert "class_map" not in str(caught.value.hint)


@pytest.mark.parametrize(
    ("low", "high", "known", "below"),
    [(0.8, 0.9, None, False), (0.8, 0.9, 0.89, False), (0.8, 0.9, 0.91, True), (0.8, 0.9, 0.5, False)],
)
def test_only_the_whole_interval_decides(low: float, high: float, known: float | None, below: bool) -> None:
    top1 = Interval(value=(low + high) / 2, low=low, high=high)
    assert is_below_known(Accuracy(images=100, top1=top1, top5=None), known) is below


def test_what_is_known_shapes_no_result_and_unused_keys_no_digest(weights: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    choices = ((), ("teacher.accuracy=0.9",), ("teacher.input_size=64",), ("teacher.crop_pct=0.9",))
    digests = [folder.settings_digest(DISTILL, small_recipe(*keys(weights, *more)), {}) for more in choices]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_the_flag_is_the_key(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["distill", str(finished.folder.path), "--dry-run", "--teacher-accuracy"]
    assert main([*line, "96.7"]) == 2
    assert "0.967" in capsys.readouterr().err
    assert main([*line, "0.967"]) == 0
