"""Every recipe that comes with the tool."""

from __future__ import annotations

from pathlib import Path

import pytest

from dskd_compress.recipe import DEFAULT_RECIPE, dump_recipe, list_recipes, load_recipe
from dskd_compress.recipe.files import list_recipe_names
from dskd_export.validation.intervals import paired_interval

FOLDER = Path(__file__).resolve().parents[2] / "recipes"
FILES = sorted(path for path in FOLDER.rglob("*") if path.suffix in (".yaml", ".yml"))
NAMES = [path.relative_to(FOLDER).with_suffix("").as_posix() for path in FILES]


def test_none_is_left_out():
    assert len(FILES) >= 3
    assert list_recipe_names() == NAMES
    assert [info.name for info in list_recipes()] == NAMES
    assert DEFAULT_RECIPE in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_loads_and_round_trips(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    (tmp_path / "r.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(str(tmp_path / "r.yaml")) == recipe


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_opens_with_command_expectation_hardware_and_time(path):
    text = path.read_text(encoding="utf-8")
    opening = [line for line in text.split("\nname:")[0].splitlines() if line]
    assert all(line.startswith("#") for line in opening)
    for word in ("Command:", "Expected:", "Hardware:", "Time:"):
        assert any(line.startswith(f"# {word}") for line in opening), word
    name = path.relative_to(FOLDER).with_suffix("").as_posix()
    assert f"dskd-compress run {name} --out" in text


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_names_it(name):
    assert f"`{name}`" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_default_recipe_needs_no_network():
    recipe = load_recipe(DEFAULT_RECIPE)
    assert recipe.data.source == "digits"
    assert recipe.teacher.pretrained is False
    assert recipe.student.pretrained is False
    assert recipe.teacher.train is not None
    assert recipe.data.augment.hflip == 0


def test_the_validation_images_of_the_demo_can_show_its_budget() -> None:
    """What its comment says: 10 lost and 2 gained for the student, 4 lost for a precision, of 359 images."""
    budget = load_recipe(DEFAULT_RECIPE).budget
    assert budget.student_drop is not None
    top1_drop = budget.of("int8").top1_drop
    assert top1_drop is not None
    assert paired_interval(10, 2, 359).high <= budget.student_drop < paired_interval(12, 2, 359).high
    assert paired_interval(4, 0, 359).high <= top1_drop < paired_interval(5, 0, 359).high
