from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dskd_compress.config import DSKD_PRESETS, DskdMethod, KdMethod, NoneMethod, Recipe, TrainSection
from dskd_compress.recipe import recipe_from_mapping
from dskd_export.errors import RecipeError

BASE: dict[str, Any] = {"teacher": {"name": "resnet34"}, "student": {"name": "resnet18"}}


def message(*overrides: str, values: dict[str, Any] = BASE) -> str:
    with pytest.raises(RecipeError) as caught:
        recipe_from_mapping(values, overrides)
    assert caught.value.exit_code == 2
    return caught.value.message


def test_defaults():
    assert recipe_from_mapping(BASE) == Recipe.model_validate(BASE)


def test_values_are_left_alone():
    values = {**copy.deepcopy(BASE), "method": {"name": "dskd", "tap": "map"}, "data": None}
    before = copy.deepcopy(values)
    recipe_from_mapping(values, ["method.name=kd", "data.source=x", "teacher.train.epochs=2"])
    assert values == before


def test_overrides_of_all_depths():
    recipe = recipe_from_mapping(
        BASE,
        [
            "seed=7",
            "data.source=photos",
            "data.augment.hflip=0",
            "data.augment.scale=[0.5, 1]",
            "teacher.train.epochs=3",
            "validate.max_kl=1e-3",
            "student.kwargs.drop_rate=0.1",
            "train.ema_decay=0.99",
            "train.ema_decay=null",
            "train.lr = 0.2",
        ],
    )
    assert (recipe.seed, recipe.data.source) == (7, "photos")
    assert (recipe.data.augment.hflip, recipe.data.augment.scale) == (0.0, (0.5, 1.0))
    assert recipe.teacher.train == TrainSection(epochs=3)
    assert recipe.validation.max_kl == 1e-3
    assert recipe.student.kwargs == {"drop_rate": 0.1}
    assert recipe.train.ema_decay is None
    assert recipe.train.lr == 0.2


@given(
    epochs=st.integers(1, 10**6),
    lr=st.floats(min_value=1e-12, max_value=1e6),
    hflip=st.floats(0, 1),
    source=st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=30),
    batches=st.lists(st.integers(1, 512), min_size=1, max_size=5),
    flag=st.booleans(),
)
def test_override_round_trip(epochs, lr, hflip, source, batches, flag):
    """What json.dumps writes of a value arrives as that value, by override as by file."""
    written = {
        "train.epochs": epochs,
        "train.lr": lr,
        "data.augment.hflip": hflip,
        "data.source": source,
        "benchmark.batches": batches,
        "train.channels_last": flag,
    }
    by_override = recipe_from_mapping(BASE, [f"{key}={json.dumps(value)}" for key, value in written.items()])
    by_file = recipe_from_mapping(
        {
            **BASE,
            "train": {"epochs": epochs, "lr": lr, "channels_last": flag},
            "data": {"source": source, "augment": {"hflip": hflip}},
            "benchmark": {"batches": batches},
        }
    )
    assert by_override == by_file
    assert by_override.train.lr == lr
    assert by_override.data.source == source


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.lr", "--set train.lr: write it as section.key=value"),
        ("=3", "--set =3: write it as section.key=value"),
        ("train..lr=3", "write it as section.key=value"),
        ("train.lr=", "--set train.lr=: train.lr: has no value; for none write null"),
        ("train.lr=[1", "--set train.lr=[1: train.lr: not valid YAML"),
        ("train.lr=.inf", "--set train.lr=.inf: train.lr: must be a finite number"),
        ("train.lr=-1", "--set train.lr=-1: train.lr: must be above 0, not -1"),
        ("train.lr=abc", "--set train.lr=abc: train.lr: must be a number, not 'abc'"),
        ("train.epoch=3", "--set train.epoch=3: train.epoch: unknown key, did you mean 'epochs'?"),
        ("trian.lr=3", "--set trian.lr=3: trian: unknown section, did you mean 'train'?"),
        ("hflip=0", "--set hflip=0: hflip: unknown key, did you mean 'data.augment.hflip'?"),
        ("teacher.name.x=3", "--set teacher.name.x=3: teacher.name is a value, not a section: it has no 'x'"),
        ("train=5", "--set train=5: train: must be a section of 'key: value' lines, not 5"),
        ("train.scheduler=cosin", "did you mean 'cosine'?"),
        (
            "train.scheduler=multistep",
            "--set train.scheduler=multistep: train: scheduler multistep needs milestones",
        ),
        ("data.augment.scale=[1, 0.5]", "scale: the first number must not be larger than the second"),
        ("validation.images=3", "validation: unknown section, did you mean 'validate'?"),
        ("method.name=dsdk", "method: there is no method 'dsdk', did you mean 'dskd'? (one of none, kd, "),
        ("method.name=[1]", "method.name: must be text, not [1]"),
        ("method.preset=[1]", "method.preset: "),
        ("method=7", "method: must be a section"),
        ("method.lsh_wieght=1", "method.lsh_wieght: unknown key, did you mean 'lsh_weight'?"),
        ("data.augment.hflip=2", "data.augment.hflip: must be at most 1, not 2"),
        ("benchmark.batches=[]", "benchmark.batches: "),
        (
            "benchmark.runners=[torch, tensorflow]",
            "benchmark.runners[1]: must be 'torch', 'onnxruntime' or 'tensorrt'",
        ),
        ("name=../x y", "name: must match ^"),
        ("data.val_fraction=!!python/name:os.system x", "put it in quotes"),
    ],
)
def test_bad_overrides(override, expected):
    assert expected in message(override)


def test_all_faults_of_all_overrides_at_once():
    lines = message("train.lr=-1", "x", "data.sorce=y").splitlines()
    assert lines[0] == "command line: 3 faults"
    assert len(lines) == 4


def test_a_method_without_a_name_is_the_default_one():
    assert recipe_from_mapping(BASE, ["method.lsh_weight=3"]).method == DskdMethod(lsh_weight=3)
    assert isinstance(recipe_from_mapping({**BASE, "method": None}).method, DskdMethod)


def test_another_method_starts_anew():
    values = {**BASE, "method": {"name": "dskd", "tap": "vector", "temperature": 2.0}}
    assert recipe_from_mapping(values, ["method.name=kd"]).method == KdMethod()
    assert recipe_from_mapping(values, ["method.name=none"]).method == NoneMethod()
    assert recipe_from_mapping(values, ["method.name=kd", "method.temperature=9"]).method == KdMethod(
        temperature=9
    )
    # The method that it is already keeps its keys.
    assert recipe_from_mapping(values, ["method.name=dskd"]).method == DskdMethod(tap="vector", temperature=2.0)


def test_an_override_of_the_preset_wins_over_the_file():
    every_key = {**BASE, "method": DskdMethod().model_dump()}
    recipe = recipe_from_mapping(every_key, ["method.preset=paper"])
    for key, value in DSKD_PRESETS["paper"].items():
        assert getattr(recipe.method, key) == value
    later = recipe_from_mapping(every_key, ["method.preset=paper", "method.start=sdedit"])
    assert later.method == DskdMethod(preset="paper", start="sdedit")


def test_empty_sections_have_their_defaults():
    recipe = recipe_from_mapping({**BASE, "data": {"augment": None}, "train": None, "validate": None})
    assert recipe == recipe_from_mapping(BASE)
    assert (
        recipe_from_mapping({"teacher": {"name": "x", "train": None}, "student": {"name": "y"}}).teacher.train
        is None
    )


def test_required_keys():
    text = message(values={"teacher": None})
    assert "teacher.name: is required" in text
    assert "student: is required" in text
