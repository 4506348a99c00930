"""A recipe as options of a command line, read back by the command line's own code."""

from __future__ import annotations

import pytest

from dskd_compress.recipe import list_recipes, recipe_as_options, recipe_from_mapping
from dskd_compress.recipe.files import RecipeInfo

KEYS = {
    "--teacher": "teacher.name",
    "--teacher-checkpoint": "teacher.checkpoint",
    "--student": "student.name",
    "--data": "data.source",
    "--input-size": "data.input_size",
}
BASE = {"teacher": {"name": "a"}, "student": {"name": "b"}}


def read_back(options: list[str]) -> list[str]:
    pairs = zip(options[::2], options[1::2], strict=True)
    return [value if option == "--set" else f"{KEYS[option]}={value}" for option, value in pairs]


@pytest.mark.parametrize("info", list_recipes(), ids=lambda info: info.name)
def test_every_recipe_comes_back(info: RecipeInfo) -> None:
    again = recipe_from_mapping({}, read_back(recipe_as_options(info.recipe)))
    assert (
        again.model_copy(update={"name": info.recipe.name, "description": info.recipe.description}) == info.recipe
    )


@pytest.mark.parametrize(
    "overrides",
    [
        ["teacher.train={}"],
        ["teacher.probe=true", "train.device=cuda:1", "data.source=my photos/it's"],
        ['teacher.class_map={"0": "yes", "7": "1"}', 'teacher.kwargs={"drop_rate": 0.1, "x": null}'],
        ["method.name=kd"],
        ["method.name=none", "tune={}"],
        ["method.name=kd", "method.temperature=9"],
        ["method.preset=paper", "method.head_weight=0.5"],
        ["budget.devices={orin: {latency_p99_ms: 5}}", "data.mean=[0.1, 0.2, 0.3]"],
    ],
)
def test_settings_come_back(overrides: list[str]) -> None:
    recipe = recipe_from_mapping(BASE, overrides)
    assert recipe_from_mapping({}, read_back(recipe_as_options(recipe))) == recipe
