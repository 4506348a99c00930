from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer
from readme_blocks import ROOT
from run_support import SMALL, small_recipe

from dskd_compress.cli import app
from dskd_compress.commands.options import amp_of, as_overrides, flag_of, resolve_run, say_chosen
from dskd_compress.console import Output
from dskd_compress.recipe import DEFAULT_RECIPE, dump_recipe, load_recipe, recipe_from_mapping
from dskd_compress.run_folder import RunFolder
from dskd_export.errors import DataError, RecipeError, UsageError

THREE = ["teacher.name=test_resnet", "student.name=test_efficientnet", "data.source=digits"]


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "recipe.yaml").write_text(dump_recipe(small_recipe()), encoding="utf-8")
    return str(tmp_path / "recipe.yaml")


# --- flags as overrides


def test_only_flags_that_were_given() -> None:
    assert as_overrides(data__source="digits", train__lr=None, seed=0) == ['data.source="digits"', "seed=0"]


@pytest.mark.parametrize(
    ("flags", "key", "expected"),
    [
        ({"train__lr": 1e-5}, ("train", "lr"), 1e-5),
        ({"train__lr": 3}, ("train", "lr"), 3.0),
        ({"train__epochs": 7}, ("train", "epochs"), 7),
        ({"data__source": "a = b: [c] # d"}, ("data", "source"), "a = b: [c] # d"),
        ({"data__source": "null"}, ("data", "source"), "null"),
        ({"data__source": "1e3"}, ("data", "source"), "1e3"),
        ({"data__source": 'it\'s "β"\\'}, ("data", "source"), 'it\'s "β"\\'),
        ({"teacher__checkpoint": Path("my weights.pth")}, ("teacher", "checkpoint"), Path("my weights.pth")),
        ({"student__name": "hf-hub:timm/resnet18.a1_in1k"}, ("student", "name"), "hf-hub:timm/resnet18.a1_in1k"),
    ],
)
def test_a_flag_arrives_as_it_was_typed(flags: dict[str, object], key: tuple[str, str], expected: object) -> None:
    recipe = recipe_from_mapping(SMALL, as_overrides(**flags))
    found = getattr(getattr(recipe, key[0]), key[1])
    assert found == expected
    assert type(found) is type(expected) or isinstance(found, Path)


# --- the recipe of a command line


def test_set_wins_over_flags_and_flags_over_the_recipe(file: str) -> None:
    plain, _ = resolve_run(file, None, [], None)
    flag, _ = resolve_run(file, None, ["train.lr=0.5"], None)
    both, _ = resolve_run(file, None, ["train.lr=0.5"], ["train.lr=0.25", "seed=3"])
    assert (plain.train.lr, flag.train.lr, both.train.lr, both.seed) == (2e-3, 0.5, 0.25, 3)


def test_where_the_run_goes(file: str, tmp_path: Path) -> None:
    assert resolve_run(file, None, [], None)[1].path == Path("runs/small")
    assert resolve_run(file, tmp_path / "there", [], None)[1].path == tmp_path / "there"


def test_a_run_folder_goes_on(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.write_recipe(small_recipe("seed=5"))
    recipe, found = resolve_run(str(folder.path), None, [], ["train.epochs=9"])
    assert (found.path, recipe.seed, recipe.train.epochs) == (folder.path, 5, 9)
    recipe, found = resolve_run(str(folder.path), tmp_path / "other", [], None)
    assert (found.path, recipe.seed) == (tmp_path / "other", 5)
    with pytest.raises(DataError, match="is not a run folder"):
        resolve_run(str(tmp_path), None, [], None)


def test_the_default(tmp_path: Path) -> None:
    recipe, folder = resolve_run(None, None, ["seed=2"], None, default=DEFAULT_RECIPE)
    assert recipe == load_recipe(DEFAULT_RECIPE, ["seed=2"])
    assert folder.path == Path("runs") / DEFAULT_RECIPE


def test_flags_can_stand_for_a_recipe() -> None:
    recipe, folder = resolve_run(None, None, THREE[:2], THREE[2:])
    assert (recipe.teacher.name, recipe.student.name, recipe.data.source) == (
        "test_resnet",
        "test_efficientnet",
        "digits",
    )
    assert recipe.name == "test_resnet-to-test_efficientnet"
    assert folder.path == Path("runs/test_resnet-to-test_efficientnet")


def test_a_name_that_is_no_folder_becomes_one() -> None:
    changes = ['teacher.name="hf-hub:me/../net"', "student.name=resnet18", "data.source=digits"]
    recipe, folder = resolve_run(None, None, changes, None)
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
    with pytest.raises(UsageError, match=f"Without a recipe, {missing} must be given"):
        resolve_run(None, None, changes, None)


def test_faults_name_the_override(file: str) -> None:
    with pytest.raises(RecipeError, match=r"train\.epochs"):
        resolve_run(file, None, ["train.epochs=0"], None)


def test_an_existing_run_is_gone_on_with_and_not_overwritten_by_the_default(tmp_path: Path) -> None:
    own = load_recipe(DEFAULT_RECIPE, ["seed=7", "name=mine"])
    RunFolder(tmp_path).create()
    RunFolder(tmp_path).write_recipe(own)
    found, folder = resolve_run(None, tmp_path, [], None, default=DEFAULT_RECIPE)
    assert found == own
    assert folder.path == tmp_path
    flags = as_overrides(teacher__name="resnet34", student__name="resnet18", data__source="digits")
    named, _ = resolve_run(None, tmp_path, flags, None)
    assert named.teacher.name == "resnet34"


# --- flags and keys


def test_every_flag_that_stands_for_a_key_is_one_of_its_command() -> None:
    program: Any = typer.main.get_command(app)
    named = 0
    for name, command in program.commands.items():
        source = ROOT / "dskd_compress" / "commands" / f"{name.replace('-', '_')}.py"
        flags = {option for parameter in command.params for option in parameter.opts}
        for key in re.findall(r"\b((?:[a-z]+__)+[a-z0-9_]+)=", source.read_text(encoding="utf-8")):
            assert flag_of(key.replace("__", ".")) in flags, (name, key)
            named += 1
    assert named > 50


def test_amp_and_its_old_name(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(json_output=False)
    assert [amp_of(amp, None, output) for amp in ("bf16", None)] == ["bf16", None]
    assert capsys.readouterr() == ("", "")
    assert amp_of(None, "bf16", output) == "bf16"
    assert "--amp bf16" in capsys.readouterr().err
    with pytest.raises(UsageError, match="--amp"):
        amp_of("fp32", "bf16", output)
    with pytest.raises(UsageError, match="--precision int8") as caught:
        amp_of(None, "int8", output)
    assert "export RUN --precision int8" in str(caught.value.hint)


def test_an_earlier_choice_is_said_with_the_way_back(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(json_output=False)
    key = "validate.precisions"
    say_chosen(None, key, [], output)
    say_chosen(["int8"], key, [f'{key}=["int8"]'], output)
    assert capsys.readouterr().out == ""
    say_chosen(["int8"], key, ["validate.images=9"], output)
    assert "--set validate.precisions=null" in " ".join(capsys.readouterr().out.split())
