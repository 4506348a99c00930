from __future__ import annotations

import json

import pytest

from dskd_compress import console
from dskd_compress.cli import main
from dskd_compress.config import Recipe
from dskd_compress.recipe import DEFAULT_RECIPE, load_recipe, read_recipe_text, recipe_schema
from dskd_compress.recipe.files import list_recipe_names


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(console, "_document_written", False)


def test_list(capsys):
    assert main(["recipes", "list"]) == 0
    lines = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in lines] == list_recipe_names()
    assert all(load_recipe(line.split()[0]).description in line for line in lines)
    assert main(["recipes", "list", "--json"]) == 0
    recipes = json.loads(capsys.readouterr().out)["recipes"]
    assert [recipe["name"] for recipe in recipes if recipe["default"]] == [DEFAULT_RECIPE]


def test_show_prints_the_file_as_it_is(capsys):
    assert main(["recipes", "show", DEFAULT_RECIPE]) == 0
    assert capsys.readouterr().out == read_recipe_text(DEFAULT_RECIPE)


@pytest.mark.parametrize("more", [["--resolved"], ["--set", "train.epochs=7"]])
def test_show_resolved_can_be_loaded(more, capsys, tmp_path):
    assert main(["recipes", "show", DEFAULT_RECIPE, *more]) == 0
    (tmp_path / "r.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    assert load_recipe(str(tmp_path / "r.yaml")) == load_recipe(DEFAULT_RECIPE, [] if len(more) == 1 else more[1:])


def test_show_json(capsys):
    assert main(["recipes", "show", DEFAULT_RECIPE, "--json"]) == 0
    assert Recipe.model_validate(json.loads(capsys.readouterr().out)) == load_recipe(DEFAULT_RECIPE)


def test_init_writes_checks_and_does_not_overwrite(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["recipes", "init"]) == 0
    assert main(["recipes", "check", "recipe.yaml"]) == 0
    (tmp_path / "recipe.yaml").write_text("mine")
    capsys.readouterr()
    assert main(["recipes", "init", "recipe.yaml"]) == 2
    err = capsys.readouterr().err
    assert "recipe.yaml exists already" in err
    assert "--force" in err
    assert (tmp_path / "recipe.yaml").read_text() == "mine"
    assert main(["recipes", "init", "recipe.yaml", "--force"]) == 0
    assert (tmp_path / "recipe.yaml").read_text() != "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_init_to_stdout_writes_no_file(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["recipes", "init", "-"]) == 0
    text = capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
    assert load_recipe("r.yaml").student.name


def test_init_of_all_keys_makes_the_same_recipe(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["recipes", "init", "short.yaml"]) == main(["recipes", "init", "all.yaml", "--all"]) == 0
    assert load_recipe("short.yaml") == load_recipe("all.yaml")
    assert len((tmp_path / "short.yaml").read_text()) * 10 < len((tmp_path / "all.yaml").read_text())


def test_init_refuses_a_folder(tmp_path, capsys):
    assert main(["recipes", "init", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err


def test_schema(capsys):
    assert main(["recipes", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == recipe_schema()
    assert main(["recipes", "schema", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == recipe_schema()


def test_check_names_the_line(tmp_path, capsys):
    path = tmp_path / "r[x].yaml"
    path.write_text("teacher: {name: a}\nstudent: {name: b}\ntrain:\n  lr: -1\n")
    assert main(["recipes", "check", str(path)]) == 2
    err = capsys.readouterr().err
    assert err.splitlines()[0] == f"error: {path}:4: train.lr: must be above 0, not -1"
    assert main(["recipes", "check", str(path), "--set", "train.lr=1"]) == 0
    assert f"{path} is a valid recipe: a to b by dskd" in capsys.readouterr().out
    assert main(["recipes", "check", str(path), "--set", "train.lr=1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["valid"] is True


def test_check_of_what_is_not_there(capsys):
    assert main(["recipes", "check", "digits/resnet18"]) == 2
    assert DEFAULT_RECIPE in capsys.readouterr().err
