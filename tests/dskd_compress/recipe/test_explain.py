from __future__ import annotations

import re
from typing import Any, get_args

import yaml
from pydantic import TypeAdapter

from dskd_compress.config import DSKD_PRESETS, DskdMethod, Method, Recipe, TeacherProbeSection, TrainSection
from dskd_compress.recipe import dump_recipe, init_recipe, load_recipe, recipe_schema
from dskd_compress.recipe.explain import SHORT_KEYS


def plain() -> Recipe:
    return Recipe.model_validate({"teacher": {"name": "resnet34"}, "student": {"name": "resnet18"}})


def test_loads_and_says_only_defaults(tmp_path):
    (tmp_path / "r.yaml").write_text(init_recipe(all_keys=True), encoding="utf-8")
    assert load_recipe(str(tmp_path / "r.yaml")) == plain()


def test_the_short_one_makes_the_same_recipe_of_few_keys(tmp_path):
    text = init_recipe()
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
    assert load_recipe(str(tmp_path / "r.yaml")) == plain()
    values = yaml.safe_load(text)
    assert [
        path
        for key, value in values.items()
        for path in ([f"{key}.{below}" for below in value] if isinstance(value, dict) else [key])
    ] == list(SHORT_KEYS)
    assert len(text.splitlines()) <= 50
    assert max(map(len, text.splitlines())) <= 100
    assert re.search(r"name: dskd +# \(one of none, kd, .*dskd\)", text)


def test_every_key_is_there_once():
    def keys(values: dict[str, Any]) -> set[str]:
        return set(values).union(*(keys(value) for value in values.values() if isinstance(value, dict)))

    text = init_recipe(all_keys=True)
    for key in keys(yaml.safe_load(dump_recipe(plain()))):
        assert re.search(rf"^ *(# )?{key}:", text, flags=re.MULTILINE), key
    # The keys of a preset are left to it: they stand there as comments.
    assert not set(DSKD_PRESETS["paper"]) & set(yaml.safe_load(text)["method"])


def test_the_preset_of_the_written_recipe_can_be_changed(tmp_path):
    (tmp_path / "r.yaml").write_text(
        init_recipe(all_keys=True).replace("preset: default", "preset: paper"), encoding="utf-8"
    )
    method = load_recipe(str(tmp_path / "r.yaml")).method
    for key, value in DSKD_PRESETS["paper"].items():
        assert getattr(method, key) == value


def test_descriptions_ranges_and_choices_are_written():
    text = re.sub(r"\n *# +", " ", init_recipe(all_keys=True))
    description = TrainSection.model_fields["optimizer"].description
    assert description is not None
    assert description in text
    assert "one of cosine, step, multistep, poly, constant; default cosine" in text
    assert "at least 1, at most 50; default 5" in text
    assert "above 0, below 1; default 0.2" in text
    assert "(required)" in text


def test_the_other_methods_can_be_uncommented():
    """Each as it stands there, with its # taken away, is that method with its defaults."""
    found = []
    for block in init_recipe(all_keys=True).split("# Alternatively ")[1:]:
        lines = block.split("# method:\n")[1].split("\n\n")[0].splitlines()
        values = yaml.safe_load("\n".join(line[2:] for line in lines if line.startswith("# ")))
        method = TypeAdapter(Method).validate_python(values)
        assert method == type(method)()
        found.append(type(method))
    assert [*found, DskdMethod] == list(get_args(get_args(Method)[0]))


def test_no_line_is_too_long():
    assert max(map(len, init_recipe(all_keys=True).splitlines())) <= 100


def test_schema():
    schema = recipe_schema()
    assert schema["$schema"].endswith("2020-12/schema")
    assert set(schema["required"]) == {"teacher", "student"}
    assert "validate" in schema["properties"]
    assert "validation" not in schema["properties"]
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["TrainSection"]["properties"]["lr"]["exclusiveMinimum"] == 0


def test_a_section_that_may_be_null_can_be_uncommented():
    lines = init_recipe(all_keys=True).split("  # With its keys:\n")[1].splitlines()
    block = [line.replace("# ", "", 1) for line in lines if line.startswith("  # ")][:7]
    loaded = yaml.safe_load("\n".join(block))["probe"]
    assert TeacherProbeSection.model_validate(loaded) == TeacherProbeSection()
    assert set(loaded) == set(TeacherProbeSection.model_fields)
