"""Every fault that a value of the recipe can have is reported in our own words, at the key as written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from dskd_compress.config import Recipe
from dskd_compress.recipe import FlagOverride, recipe_from_mapping
from dskd_compress.recipe.sections import all_sections, keys_of
from dskd_export.errors import RecipeError

BASE: dict[str, Any] = {"teacher": {"name": "resnet18"}, "student": {"name": "resnet10t"}}
WRONG = [
    None,
    True,
    -1,
    0,
    2.5,
    10**400,
    "x",
    "",
    "1e400",
    [],
    [1],
    [None],
    ["x", "y", "z", "w"],
    {},
    {"x": 1},
    {"x": [1]},
]
FOREIGN = re.compile(
    r"pydantic|Input should|String should|Field required|valid (string|integer|number|dict|tuple|list)"
    r"|unable to parse|after validation|instance of|<class|\w+Section|\w+Method|(literal|union|tuple|dict)\[|lax",
    re.IGNORECASE,
)  # fmt: skip


def places() -> Iterator[tuple[str, ...]]:
    """Every key of every section, of each method too."""
    for path, section in all_sections(Recipe):
        for key in keys_of(section):
            yield (*path, key)


def settings_with(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A sound recipe but for one value."""
    root: dict[str, Any] = {key: dict(section) for key, section in BASE.items()}
    section = root
    for key in path[:-1]:
        section = section.setdefault(key, {})
    section[path[-1]] = value
    return root


def faults(settings: dict[str, Any]) -> list[str]:
    try:
        recipe_from_mapping(settings)
    except RecipeError as error:
        lines = error.message.splitlines()
        return lines[1:] if len(lines) > 1 else lines
    return []


def kinds(settings: dict[str, Any]) -> set[str]:
    try:
        Recipe.model_validate(settings)
    except ValidationError as error:
        return {details["type"] for details in error.errors()}
    return set()


def test_no_fault_of_any_key_is_in_another_librarys_words() -> None:
    seen: set[str] = set()
    for path in dict.fromkeys(places()):
        for value in WRONG:
            settings = settings_with(path, value)
            found = faults(settings)
            seen |= kinds(settings)
            for line in found:
                assert not FOREIGN.search(line), line
                assert len(line) < 600, line
                assert line.startswith("command line: "), line
    assert len(seen) > 15  # kinds of faults


def test_unknown_keys_and_missing_ones_everywhere() -> None:
    for path, _ in all_sections(Recipe):
        if path == ("budget", "devices"):  # its keys are names that the recipe chooses
            path = ("budget", "devices", "jetson")
        settings = settings_with((*path, "no_such_key"), 1)
        assert any("no_such_key: unknown" in line for line in faults(settings)), path
    assert faults({"teacher": {}, "student": {"name": "x"}}) == ["command line: teacher.name: is required"]


@pytest.mark.parametrize(
    ("override", "instead"),
    [
        ("epochs=3", "--set train.epochs=3"),
        ("epoch=3", "--set train.epochs=3"),
        ("lr=0.1", "--set train.lr=0.1"),
        ("exporter=legacy", "--set export.exporter=legacy"),
        ("train.epoch=3", "--set train.epochs=3"),
        ("data.augment.hflp=0", "--set data.augment.hflip=0"),
        ("export.target=sm_87", "--set export.target=jetson-orin"),
        (FlagOverride('export.target="sm87"', "--target sm87"), "--target jetson-orin"),
        (FlagOverride('method.name="kdd"', "--method kdd"), "--method kd"),
        (FlagOverride('train.precision="fp23"', "--amp fp23"), "--amp fp32"),
    ],
)
def test_an_option_is_corrected_where_it_is_clear_what_was_meant(override: str, instead: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_from_mapping(BASE, [override])
    assert caught.value.hint == f"Use {instead}"
    flag, key_and_value = instead.split(maxsplit=1)
    if flag == "--set":  # it works when pasted
        recipe_from_mapping(BASE, [key_and_value])


@pytest.mark.parametrize(
    ("key", "places"),
    [
        ("checkpoint", ["teacher.checkpoint", "student.checkpoint"]),
        ("batches", ["build.batches", "validate.batches", "benchmark.batches"]),
        ("epochs", ["train.epochs"]),
        ("calibration_batches", ["tune.calibration_batches"]),
    ],
)
def test_a_key_without_its_section_is_found_where_it_is_usual(key: str, places: list[str]) -> None:
    (line,) = faults({**BASE, key: 1})
    assert re.findall(r"'(\w+\.\w+)'", line) == places
    assert f"{key}: unknown key" in line


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("teacher", "class_map"), 5, "teacher.class_map: must be 'by_name', a path or a mapping, not 5"),
        (("teacher", "class_map"), {"a": [1]}, "teacher.class_map.a: must be text or a whole number, not [1]"),
        (("export", "precisions"), 5, "export.precisions: must be a list or 'auto', not 5"),
        (("export", "precisions"), ["fp99"], "precisions[0]: must be 'fp32', 'fp16', 'bf16', 'int8' or 'fp8'"),
        (("export", "precisions"), ["fp99"], "(or 'auto' alone)"),
        (("data", "mean"), [1, 2], "data.mean[2]: is required"),
        (("data", "mean"), [1, 2, 3, 4], "data.mean: must have at most 3 items, not 4"),
        (("teacher", "checkpoint"), 5, "teacher.checkpoint: must be a path, not 5"),
        (("train", "lr"), "1e400", "train.lr: must be a finite number, not '1e400'"),
        (("train", "epochs"), None, "train.epochs: must be a whole number, not null"),
        (("train", "epochs"), 2.5, "train.epochs: must be a whole number, not 2.5"),
        (("name",), "../x", "name: must match ^[A-Za-z0-9]"),
        (("teacher", "probe"), [], "teacher.probe: must be a section of 'key: value' lines, not []"),
    ],
)  # fmt: skip
def test_the_words(path: tuple[str, ...], value: Any, expected: str) -> None:
    (line,) = faults(settings_with(path, value))
    assert expected in line


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("epochs=3", "train.epochs"),
        ("student_drop=0.1", "budget.student_drop"),
        ("train.epohcs=3", "epochs"),
        ("export.precision=fp16", "precisions"),
        ("lr=0.1", "train.lr"),
        ("validation.images=3", "validate"),
        ("studnt.name=x", "student"),
    ],
)
def test_the_nearest_key_is_named(override: str, meant: str) -> None:
    with pytest.raises(RecipeError) as raised:
        recipe_from_mapping(BASE, [override])
    assert f"did you mean '{meant}'?" in raised.value.message
