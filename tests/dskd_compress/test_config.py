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
from dskd_export.settings import BudgetSettings

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
    assert StudentSection.model_validate({"name": "a"}).pretrained == "auto"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scheduler": "multistep"}, "needs milestones"),
        ({"epochs": 3, "warmup_epochs": 3}, "warmup_epochs 3 must be smaller than epochs 3"),
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


# --- the budget


def test_every_precision_has_its_budget():
    budget = recipe().budget
    assert budget.of("fp16").model_dump() == {
        "top1_drop": 0.01,
        "worst_class_drop": 0.2,
        "agreement": 0.95,
        "mean_abs_relative": 0.01,
        "size_mb": None,
    }
    assert budget.of("bf16").mean_abs_relative == 0.05
    assert (budget.of("int8").top1_drop, budget.of("int8").agreement) == (0.02, 0.85)
    assert budget.of("fp8") == budget.of("int8")
    assert budget.of("int4") == budget.of("fp16")  # a precision that the budget does not know has no override
    assert set(budget.of("fp32").model_dump().values()) == {None}


def test_what_is_written_for_all_holds_for_all_but_those_that_have_it_themselves():
    budget = recipe(budget={"top1_drop": 0.005, "fp8": {"top1_drop": 0.03}, "fp32": {"size_mb": 9}}).budget
    assert [budget.of(name).top1_drop for name in ("fp16", "bf16", "int8", "fp8")] == [0.005, 0.005, 0.005, 0.03]
    assert budget.of("int8").agreement == 0.85  # not written, so its own default
    assert budget.of("fp32").size_mb == 9
    assert budget.of("fp32").top1_drop is None
    off = recipe(budget={"worst_class_drop": None, "top1_drop": None}).budget
    assert (off.of("int8").top1_drop, off.of("fp16").worst_class_drop) == (None, None)


@pytest.mark.parametrize(
    "values", [{}, {"top1_drop": 0.005}, {"int8": {"agreement": 0.7}}, {"size_mb": 4, "int8": {"size_mb": 2}}]
)
def test_a_budget_that_was_written_out_in_full_comes_back(values):
    first = recipe(budget=values)
    again = Recipe.model_validate(first.model_dump(by_alias=True))
    assert again == first


@pytest.mark.parametrize(
    "values",
    [
        {"latency_p98_ms": 5},
        {"latency_p99_ms": 0},
        {"devices": {"orin": {"agreement": 0.9}}},
        {"top1_drop": 1.5},
        {"int8": {"top1": 1}},
        {"int8": 0.02},
        3,
        {"size_mb": 0},
    ],
)
def test_a_budget_that_is_refused(values):
    with pytest.raises(ValidationError, match="budget"):
        recipe(budget=values)


@pytest.mark.parametrize(
    "values",
    [
        {"precisions": []},
        {"precisions": ["INT8"]},
        {"providers": ["tpu"]},
        {"pair": ["torch:cpu:fp32"]},
        {"pair": ["torch", "onnxruntime:cpu:int8"]},
        {"pair": ["tensorrt:cpu:fp32", "torch:cpu:fp32"]},
    ],
)
def test_what_cannot_be_validated(values):
    with pytest.raises(ValidationError, match="validate"):
        recipe(validate=values)


def test_the_budget_of_a_device():
    budget = BudgetSettings.model_validate(
        {
            "top1_drop": 0.01,
            "latency_p99_ms": 5,
            "devices": {"orin": {"latency_p99_ms": 8, "top1_drop": 0.03, "size_mb": 6}},
        }
    )
    assert budget.speed().limits == {"latency_p99_ms": 5}
    assert budget.speed("thor").limits == {"latency_p99_ms": 5}
    assert budget.speed("orin").limits == {"latency_p99_ms": 8, "size_mb": 6}
    assert (budget.of("fp16").top1_drop, budget.of("fp16", "orin").top1_drop) == (0.01, 0.03)
    assert budget.of("int8", "orin").size_mb == 6


@pytest.mark.parametrize(("batch_size", "pieces"), [(8, 8), (2, 2)])
def test_a_piece_has_two_images_at_least(batch_size: int, pieces: int):
    with pytest.raises(ValidationError, match=f"grad_accumulation {pieces} leaves one image"):
        TrainSection(batch_size=batch_size, grad_accumulation=pieces)
    TrainSection(batch_size=2 * batch_size, grad_accumulation=pieces)
