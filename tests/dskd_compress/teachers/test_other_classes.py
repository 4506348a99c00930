"""A teacher of other classes, to be used as it is: the error names four commands, and each works when pasted."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from dskd_compress import console
from dskd_compress.cli import main
from dskd_compress.label_space import ClassNames
from dskd_compress.recipe import recipe_from_mapping
from dskd_compress.run_folder import RunFolder
from dskd_compress.teachers.classes import refuse_other_classes
from dskd_compress.timm_import import import_timm
from dskd_export.documents.base import read_document
from dskd_export.documents.training import TrainingDocument
from dskd_export.errors import DataError

CLASSES = ("3", "it's", "two words")
WAYS = ["fit a linear classifier", "map its classes", "train its classifier", "train all of it"]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """`distill` with a teacher of five classes for images of three, with names that a shell would split."""
    root = tmp_path_factory.mktemp("a job")
    for label, name in enumerate(CLASSES):
        for split, count in (("train", 6), ("val", 3)):
            (root / "photos" / split / name).mkdir(parents=True)
            for number in range(count):
                colour = (80 * label, 20 * number, 200 - 80 * label)
                Image.new("RGB", (32, 32), colour).save(root / "photos" / split / name / f"{number}.png")
    torch.manual_seed(0)
    save_file(import_timm().create_model("test_resnet", num_classes=5).state_dict(), root / "five.safetensors")
    line = f"--teacher test_resnet --teacher-checkpoint {shlex.quote(str(root / 'five.safetensors'))} "
    line += f"--student test_resnet --data {shlex.quote(str(root / 'photos'))} --input-size 32 --method kd"
    line += " --epochs 1 --batch-size 6 --set data.workers=0 --set teacher.fit=none"
    return ["distill", *shlex.split(line)]


def commands(text: str) -> dict[str, list[str]]:
    lines = [
        line.strip().partition(": dskd-compress ") for line in text.splitlines() if ": dskd-compress " in line
    ]
    return {way: shlex.split(command) for way, _, command in lines}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_works_when_it_is_pasted(
    way: str,
    job: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "my run"
    assert main([*job, "--out", str(out)]) == 3
    told = capsys.readouterr().err
    assert "error: The teacher has 5 classes, the data 3." in told
    found = commands(told)
    assert [next(way for way in WAYS if text.startswith(way)) for text in found] == WAYS
    (command,) = (command for text, command in found.items() if text.startswith(way))
    monkeypatch.setattr(console, "_document_written", False)
    assert main(command) == 0, capsys.readouterr().err
    printed = capsys.readouterr()
    if way.startswith("train"):
        assert "classifier of 5 classes is left out" in printed.out
        document = read_document(out / "teacher.json", TrainingDocument)
        fit = "head" if way == "train its classifier" else "all"
        assert (document.epochs, document.steps, document.teacher_fit) == (
            30,
            90,
            fit,
        )  # --epochs is the student's
        following = next(line for line in printed.out.splitlines() if line.startswith("Next: dskd-compress "))
        assert main(shlex.split(following.removeprefix("Next: dskd-compress "))) == 0, capsys.readouterr().err
    document = read_document(out / "distill.json", TrainingDocument)
    assert (document.method, document.epochs, document.teacher is not None) == ("kd", 1, True)


def test_a_teacher_that_is_still_to_be_trained_is_trained_by_the_hint(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All options are in the hint, also in a folder whose recipe has another teacher."""
    head = [*job[:-1], "teacher.fit=head", "--set", "teacher.train={epochs: 1, batch_size: 6}"]
    out = tmp_path / "my run"
    assert main([*head, "--out", str(out)]) == 3
    hint = next(line for line in capsys.readouterr().err.splitlines() if "Make it first: " in line)
    monkeypatch.setattr(console, "_document_written", False)
    assert main(shlex.split(hint.partition("Make it first: dskd-compress ")[2])) == 0, capsys.readouterr().err
    assert read_document(out / "teacher.json", TrainingDocument).teacher_fit == "head"
    (out / "teacher.safetensors").unlink()
    capsys.readouterr()
    assert main(["distill", str(out)]) == 3
    assert f"dskd-compress train {shlex.quote(str(out))}\n" in capsys.readouterr().err
    assert main(["distill", str(out), "--set", "teacher.train.lr=0.001"]) == 3
    assert "--set teacher.train.lr=0.001" in capsys.readouterr().err


def test_the_notice_of_a_fitted_classifier_names_the_command_that_trains(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*job[:-2], "--out", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "To train it: dskd-compress train --teacher test_resnet " in out
    assert f"--set teacher.fit=head --out {tmp_path / 'run'} " in out


@pytest.mark.parametrize(
    ("teacher", "classes", "option"),
    [
        (ClassNames(4, ("cat", "dog", "cow", "ant")), ("dog", "cat"), "--set teacher.class_map=by_name"),
        (
            ClassNames(3, ("cat", "dog", "cow")),
            ("sheep", "cat"),
            """{"1": "sheep", "0": "cat"}'""",
        ),
        (ClassNames(3), ("1", "2"), """'teacher.class_map={"0": "1", "1": "2"}'"""),
        (ClassNames(2), ("a", "b", "c"), None),  # too few to stand for them
        (ClassNames(0), ("a", "b"), None),
    ],
)
def test_the_map_that_is_proposed(
    teacher: ClassNames, classes: tuple[str, ...], option: str | None, tmp_path: Path
) -> None:
    recipe = recipe_from_mapping(
        {"teacher": {"name": "a", "kwargs": {"num_classes": 9}}, "student": {"name": "b"}}
    )
    with pytest.raises(DataError) as caught:
        refuse_other_classes(recipe, RunFolder(tmp_path), classes, teacher)
    hint = str(caught.value.hint)
    assert ("map its classes" in hint) == (option is not None)
    assert option is None or option in hint
    assert "num_classes" not in hint
    refuse_other_classes(recipe, RunFolder(tmp_path), ("x",) * teacher.count, teacher)
