"""A fault that the command line caused names what was typed there, and what to add."""

from __future__ import annotations

from typing import Any

import pytest

from dskd_compress.recipe import FlagOverride, dump_recipe, parse_yaml, recipe_from_mapping
from dskd_export.errors import RecipeError

BASE: dict[str, Any] = {
    "teacher": {"name": "resnet34"},
    "student": {"name": "resnet18"},
    "train": {"epochs": 12, "warmup_epochs": 2, "batch_size": 64, "grad_accumulation": 2},
}
IN_FILE = {("train",): 83, ("train", "epochs"): 84, ("train", "warmup_epochs"): 85}


def fault(*overrides: str, values: dict[str, Any] = BASE) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        recipe_from_mapping(values, overrides, "recipe.yaml", IN_FILE)
    return caught.value


def flag(key: str, value: object, name: str) -> FlagOverride:
    return FlagOverride(f"{key}={value}", f"{name} {value}")


# --- the warm-up


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 0), (2, 0), (3, 2), (6, 2), (100, 2)])
@pytest.mark.parametrize("section", ["train", "teacher.train"])
def test_a_warm_up_that_would_not_fit_is_shortened(section: str, epochs: int, warmup: int) -> None:
    values = {**BASE, "teacher": {"name": "resnet34", "train": BASE["train"]}}
    recipe = recipe_from_mapping(values, [flag(f"{section}.epochs", epochs, "--epochs")])
    found = recipe.train if section == "train" else recipe.teacher.train
    assert found is not None
    assert (found.epochs, found.warmup_epochs) == (epochs, warmup)


def test_in_the_ratio_of_the_training() -> None:
    values = {**BASE, "train": {"epochs": 20, "warmup_epochs": 10}}
    assert recipe_from_mapping(values, ["train.epochs=8"]).train.warmup_epochs == 4
    # What counts is what is there in the end.
    assert recipe_from_mapping(values, ["train.epochs=1", "train.epochs=40"]).train.warmup_epochs == 10


def test_the_recipe_of_a_run_writes_every_key_out() -> None:
    parsed = parse_yaml(dump_recipe(recipe_from_mapping(BASE)), "recipe.yaml")
    recipe = recipe_from_mapping(parsed.value, [flag("train.epochs", 1, "--epochs")], "recipe.yaml", parsed.lines)
    assert (recipe.train.epochs, recipe.train.warmup_epochs) == (1, 0)


def test_a_warm_up_that_was_set_as_well_is_a_fault() -> None:
    error = fault("train.warmup_epochs=5", flag("train.epochs", 5, "--epochs"))
    assert error.message.startswith("--set train.warmup_epochs=5, --epochs 5: train: ")
    assert "recipe.yaml" not in error.message
    assert error.hint == "Add --set train.warmup_epochs=0"
    recipe_from_mapping(BASE, ["train.warmup_epochs=5", "train.epochs=5", "train.warmup_epochs=0"])


def test_a_fault_of_the_file_still_has_its_line() -> None:
    values = {**BASE, "train": {"epochs": 3, "warmup_epochs": 3}}
    error = fault(values=values)
    assert error.message.startswith("recipe.yaml:83: train: warmup_epochs 3 must be smaller than epochs 3")
    assert error.hint == "Add --set train.warmup_epochs=0"


# --- other faults


@pytest.mark.parametrize(
    ("override", "start"),
    [
        (flag("train.epochs", 0, "--epochs"), "--epochs 0: train.epochs: "),
        (flag("seed", -1, "--seed"), "--seed -1: seed: "),
        (
            FlagOverride('export.precisions=["int4"]', "--precision int4"),
            "--precision int4: export.precisions",
        ),
        (flag("export.target", "moon", "--target"), "--target moon: export.target: "),
        (flag("method.name", "kdd", "--method"), "--method kdd: method: there is no method 'kdd'"),
        ("train.epochs=0", "--set train.epochs=0: train.epochs: "),
    ],
)
def test_the_flag_is_named(override: str, start: str) -> None:
    assert start in fault(override).message


def test_keys_that_do_not_go_together() -> None:
    error = fault(flag("train.batch_size", 33, "--batch-size"))
    assert error.message.startswith("--batch-size 33: train: grad_accumulation 2 does not divide batch_size 33")
    assert error.hint == "Add --set train.grad_accumulation=1"
    # The way out is a key that this line has not set itself.
    values = {**BASE, "teacher": {"name": "resnet34", "train": {}}}
    assert fault("teacher.probe=true", values=values).hint == "Add --set teacher.train=null"
    values = {**BASE, "teacher": {"name": "resnet34", "probe": {}}}
    error = fault(flag("teacher.train.epochs", 3, "--epochs"), values=values)
    assert error.message.startswith("--epochs 3: teacher: train and probe each")
    assert error.hint == "Add --set teacher.probe=null"


@pytest.mark.parametrize(
    ("written", "overrides", "fit", "kept"),
    [
        # A choice on the command line drops what the file has for another one ...
        ({"train": {"epochs": 60}}, ["teacher.fit=probe"], "probe", {"probe"}),
        ({"train": {"epochs": 60}}, ["teacher.fit=none"], "none", set()),
        ({"fit": "probe", "probe": {}}, ["teacher.fit=all"], "all", {"train"}),
        ({"fit": "probe", "probe": {}}, ["teacher.train.epochs=3", "teacher.fit=head"], "head", {"train"}),
        ({"class_map": "by_name", "class_names": "a.txt"}, ["teacher.fit=head"], "head", {"train"}),
        ({"class_map": "by_name"}, ["teacher.fit=none"], "none", {"class_map"}),
        ({"fit": "probe", "probe": {}}, ["teacher.fit=null"], None, set()),
        # ... and settings that are taken away take their choice along, as --teacher-checkpoint does.
        ({"fit": "all", "train": {}}, ["teacher.train=null"], None, set()),
        ({"fit": "head", "train": {}}, ["teacher.train=null", "teacher.fit=probe"], "probe", {"probe"}),
        ({"fit": "probe", "probe": {}}, ["teacher.probe=false"], None, set()),
        ({"train": {"epochs": 60}}, ["teacher.train=null"], None, set()),
        ({"fit": "none"}, ["teacher.train=null"], "none", set()),
        # The settings of a choice go with it.
        ({"fit": "head"}, ["teacher.train.epochs=3"], "head", {"train"}),
        ({"train": {"epochs": 60}}, ["teacher.fit=head"], "head", {"train"}),
    ],
)
def test_how_a_teacher_is_fitted(
    written: dict[str, object], overrides: list[str], fit: str | None, kept: set[str]
) -> None:
    values = {**BASE, "teacher": {"name": "resnet34", **written}}
    teacher = recipe_from_mapping(values, overrides).teacher
    assert (
        teacher.fit,
        {key for key in ("train", "probe", "class_map") if getattr(teacher, key) is not None},
    ) == (
        fit,
        kept,
    )
    if written.get("train") == {"epochs": 60} and fit == "head":
        assert teacher.train is not None
        assert teacher.train.epochs == 60


@pytest.mark.parametrize(
    ("written", "overrides", "named", "hint"),
    [
        ({"fit": "probe", "train": {}}, [], "train", "--set teacher.fit=all"),
        ({"fit": "none", "train": {}}, [], "train", "--set teacher.fit=all"),
        ({"fit": "none", "probe": {}}, [], "probe", "--set teacher.fit=probe"),
        ({"fit": "all", "class_map": "by_name"}, [], "class_map", "--set teacher.fit=none"),
        ({"fit": "none"}, ["teacher.train.epochs=3"], "train", "--set teacher.fit=all"),
        ({"fit": "probe", "probe": {}}, ["teacher.train.epochs=3"], "train", "--set teacher.fit=all"),
        ({"fit": "probe", "probe": {}}, ["teacher.class_map=by_name"], "class_map", "--set teacher.fit=none"),
        ({}, ["teacher.train.epochs=3", "teacher.fit=probe"], "train", "--set teacher.fit=all"),
        ({"fit": "head", "train": {}}, ["teacher.probe=true"], "probe", "--set teacher.fit=probe"),
    ],
)
def test_the_way_out_of_a_contradiction_works_when_it_is_added(
    written: dict[str, object], overrides: list[str], named: str, hint: str
) -> None:
    values = {**BASE, "teacher": {"name": "resnet34", **written}}
    error = fault(*overrides, values=values)
    assert named in error.message
    assert error.hint == f"Add {hint}"
    recipe_from_mapping(values, [*overrides, hint.removeprefix("--set ")])


def test_normalisation_belongs_to_features_that_stay() -> None:
    values = {**BASE, "teacher": {"name": "resnet34", "mean": [0.5, 0.5, 0.5]}}
    for fit in ("none", "probe", "head"):
        assert recipe_from_mapping(values, [f"teacher.fit={fit}"]).teacher.mean == (0.5, 0.5, 0.5)
    assert "data.mean" in fault("teacher.fit=all", values=values).message


@pytest.mark.parametrize("section", ["train", "teacher.train"])
def test_batch_norm_of_random_weights_is_not_frozen(section: str) -> None:
    random = ["teacher.pretrained=false", "student.pretrained=false", f"{section}.freeze_batch_norm=true"]
    error = fault(*random)
    assert f"--set {section}.freeze_batch_norm=true: " in error.message
    assert error.hint == f"Add --set {section}.freeze_batch_norm=false"
    recipe_from_mapping(BASE, [*random, "student.checkpoint=a.pth", "teacher.checkpoint=b.pth"])
