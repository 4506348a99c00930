from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from dskd_compress import config
from dskd_compress.config import (
    DSKD_PRESETS,
    AugmentSection,
    DskdMethod,
    ModelSection,
    Recipe,
    Section,
    StudentSection,
    TeacherSection,
    TrainSection,
)

SECTIONS = [value for value in vars(config).values() if isinstance(value, type) and issubclass(value, Section)]


def recipe(**sections: object) -> Recipe:
    return Recipe.model_validate({"teacher": {"name": "a"}, "student": {"name": "b"}, **sections})


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_is_frozen_closed_and_documented(section: type[BaseModel]):
    assert section.model_config["frozen"] is True
    assert section.model_config["extra"] == "forbid"
    assert (section.__doc__ or "").strip().endswith(".")


def test_frozen():
    with pytest.raises(ValidationError):
        recipe().seed = 3  # type: ignore[misc]


@pytest.mark.parametrize("name", sorted(DSKD_PRESETS))
def test_presets_are_made_of_valid_keys_and_values(name):
    method = DskdMethod.model_validate({"preset": name})
    for key, value in DSKD_PRESETS[name].items():
        assert key in DskdMethod.model_fields
        assert getattr(method, key) == value


def test_the_paper_preset_differs_from_the_default_in_every_key():
    default, paper = DskdMethod(), DskdMethod(preset="paper")
    for key in DSKD_PRESETS["paper"]:
        assert getattr(default, key) != getattr(paper, key), key


def test_an_explicit_key_wins_over_the_preset():
    method = DskdMethod.model_validate({"preset": "paper", "lsh_weight": 1.5})
    assert method.lsh_weight == 1.5
    assert method.start == DSKD_PRESETS["paper"]["start"]


@pytest.mark.parametrize("preset", ["papre", ["paper"], {"a": 1}, None, 3])
def test_a_preset_that_does_not_exist(preset):
    with pytest.raises(ValidationError, match="preset"):
        DskdMethod.model_validate({"preset": preset})


def test_a_checkpoint_replaces_the_pretrained_weights():
    assert ModelSection.model_validate({"name": "a"}).pretrained is True
    assert ModelSection.model_validate({"name": "a", "checkpoint": "w.safetensors"}).pretrained is False
    assert TeacherSection.model_validate({"name": "a"}).pretrained is True
    assert StudentSection.model_validate({"name": "a"}).pretrained is False


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scheduler": "multistep"}, "needs milestones"),
        ({"epochs": 3, "warmup_epochs": 3}, "warmup_epochs must be smaller"),
        ({"batch_size": 1}, "batch_size"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"precision": "int8"}, "precision"),
    ],
)
def test_train_section_refuses(values, message):
    with pytest.raises(ValidationError, match=message):
        TrainSection.model_validate(values)


@pytest.mark.parametrize("name", ["scale", "ratio"])
def test_augment_ranges_are_ordered(name):
    assert getattr(AugmentSection.model_validate({name: [0.5, 0.5]}), name) == (0.5, 0.5)
    with pytest.raises(ValidationError, match=name):
        AugmentSection.model_validate({name: [0.6, 0.5]})


@pytest.mark.parametrize("name", ["", "/abs", "a b", ".hidden", "x\n"])
def test_recipe_names(name):
    with pytest.raises(ValidationError, match="name"):
        recipe(name=name)


def test_validate_is_the_key_of_the_file():
    assert recipe(validate={"images": 5}).validation.images == 5
    assert "validate" in recipe().model_dump(by_alias=True)
