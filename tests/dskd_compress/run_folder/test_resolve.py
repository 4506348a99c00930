from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from run_support import small_recipe

from dskd_compress.commands.options import as_overrides
from dskd_compress.recipe import DEFAULT_RECIPE, dump_recipe, load_recipe
from dskd_compress.run_folder import RunFolder, resolve_run
from dskd_export.errors import DataError, RecipeError, UsageError

THREE = ["teacher.name=test_resnet", "student.name=test_efficientnet", "data.source=digits"]


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "recipe.yaml").write_text(dump_recipe(small_recipe()), encoding="utf-8")
    return str(tmp_path / "recipe.yaml")


def test_set_wins_over_flags_and_flags_over_the_recipe(file: str) -> None:
    plain, _ = resolve_run(file, None, [])
    flag, _ = resolve_run(file, None, ["train.lr=0.5"])
    both, _ = resolve_run(file, None, ["train.lr=0.5", "train.lr=0.25", "seed=3"])
    assert (plain.train.lr, flag.train.lr, both.train.lr, both.seed) == (2e-3, 0.5, 0.25, 3)


def test_where_the_run_goes(file: str, tmp_path: Path) -> None:
    assert resolve_run(file, None, [])[1].path == Path("runs/small")
    assert resolve_run(file, tmp_path / "there", [])[1].path == tmp_path / "there"


def test_a_run_folder_goes_on(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.write_recipe(small_recipe("seed=5"))
    recipe, found = resolve_run(str(folder.path), None, ["train.epochs=9"])
    assert (found.path, recipe.seed, recipe.train.epochs) == (folder.path, 5, 9)
    recipe, found = resolve_run(str(folder.path), tmp_path / "other", [])
    assert (found.path, recipe.seed) == (tmp_path / "other", 5)
    with pytest.raises(DataError, match=r"recipe\.yaml"):
        resolve_run(str(tmp_path), None, [])


def test_the_default(tmp_path: Path) -> None:
    recipe, folder = resolve_run(None, None, ["seed=2"], default=DEFAULT_RECIPE)
    assert recipe == load_recipe(DEFAULT_RECIPE, ["seed=2"])
    assert folder.path == Path("runs") / DEFAULT_RECIPE


def test_flags_can_stand_for_a_recipe() -> None:
    recipe, folder = resolve_run(None, None, THREE)
    assert (recipe.teacher.name, recipe.student.name, recipe.data.source) == (
        "test_resnet",
        "test_efficientnet",
        "digits",
    )
    assert recipe.name == "test_resnet-to-test_efficientnet"
    assert folder.path == Path("runs/test_resnet-to-test_efficientnet")


def test_a_name_that_is_no_folder_becomes_one() -> None:
    changes = ['teacher.name="hf-hub:me/../net"', "student.name=resnet18", "data.source=digits"]
    recipe, folder = resolve_run(None, None, changes)
    assert folder.path == Path("runs") / recipe.name
    assert set(recipe.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")
    assert ":" not in recipe.name
    assert "/" not in recipe.name


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ([], "--teacher, --student, --data"),
        (THREE[:1], "--student, --data"),
        (THREE[1:], "--teacher"),
        (["train.lr=0.1", *THREE[:2]], "--data"),
    ],
)
def test_what_is_missing_is_listed(changes: list[str], missing: str) -> None:
    with pytest.raises(UsageError, match=missing):
        resolve_run(None, None, changes)


def test_faults_name_the_override(file: str) -> None:
    with pytest.raises(RecipeError, match=r"train\.epochs"):
        resolve_run(file, None, ["train.epochs=0"])


def test_an_existing_run_is_gone_on_with_and_not_overwritten_by_the_default(tmp_path: Path) -> None:
    own = load_recipe(DEFAULT_RECIPE, ["seed=7", "name=mine"])
    RunFolder(tmp_path).create()
    RunFolder(tmp_path).write_recipe(own)
    found, folder = resolve_run(None, tmp_path, [], default=DEFAULT_RECIPE)
    assert found == own
    assert folder.path == tmp_path
    flags = as_overrides(teacher__name="resnet34", student__name="resnet18", data__source="digits")
    named, _ = resolve_run(None, tmp_path, flags)
    assert named.teacher.name == "resnet34"


def test_a_recipe_object_is_not_changed_by_its_overrides(tmp_path: Path) -> None:
    recipe = small_recipe()
    changed, folder = resolve_run(recipe, tmp_path, ["train.epochs=9"])
    assert (changed.train.epochs, recipe.train.epochs, folder.path) == (9, 2, tmp_path)
    assert changed.model_copy(update={"train": recipe.train}) == recipe


@pytest.mark.parametrize(
    ("source", "out"),
    [
        ("photos", "photos"),
        ("photos", "photos/runs/b"),
        ("photos/", "link/b"),
        ("link", "photos"),
        (".", None),
        ("wds/photos", "photos/b"),
        ("photos", "photos/../photos/train"),
        ("b/bundle", "b"),
        ("b/checkpoint/photos", "b"),
    ],
)
def test_a_run_does_not_lie_among_its_images(
    source: str, out: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("photos/train", "b/bundle", "b/checkpoint/photos"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "link").symlink_to("photos")
    changes = [*THREE[:2], f"data.source={source}"]
    with pytest.raises(UsageError, match="folder of the images") as refused:
        resolve_run(None, out and Path(out), changes)  # type: ignore[arg-type]
    other = shlex.split(refused.value.hint or "")[-1]
    assert resolve_run(None, Path(other), changes)[1].path == Path(other)


@pytest.mark.parametrize(
    ("source", "out"),
    [("photos", "photos-run"), ("b/photos", "b"), ("digits", "digits/run"), ("photos.npz", "."), ("none", "none")],
)
def test_next_to_them_it_does(source: str, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "b/photos", "digits"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "photos.npz").touch()
    assert resolve_run(None, Path(out), [*THREE[:2], f"data.source={source}"])[1].path == Path(out)


def test_a_run_that_lies_there_already_is_resumed(tmp_path: Path) -> None:
    images = tmp_path / "photos"
    RunFolder(images / "run").write_recipe(small_recipe(f"data.source={images}"))
    assert resolve_run(images / "run", None, [])[1].path == images / "run"
