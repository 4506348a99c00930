from __future__ import annotations

import hashlib

import yaml
from hypothesis import given
from hypothesis import strategies as st

from dskd_compress.config import (
    DskdMethod,
    KdMethod,
    NoneMethod,
    Recipe,
    StudentSection,
    TeacherSection,
    TrainSection,
)
from dskd_compress.recipe import dump_recipe, load_recipe, section_digests
from dskd_compress.recipe.yaml_text import parse_yaml

_RECIPES = st.builds(
    Recipe,
    description=st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=80),
    seed=st.integers(0, 2**31),
    teacher=st.builds(
        TeacherSection,
        name=st.just("resnet34"),
        pretrained=st.booleans(),
        checkpoint=st.none() | st.just("weights/a b.safetensors"),
        kwargs=st.dictionaries(
            st.sampled_from(["drop_rate", "img_size", "null", "1e3"]), st.none() | st.floats(-1, 1)
        ),
        train=st.none() | st.builds(TrainSection, lr=st.floats(1e-9, 1e3), warmup_epochs=st.integers(0, 20)),
    ),
    student=st.builds(StudentSection, name=st.just("resnet18"), pretrained=st.booleans()),
    method=st.just(NoneMethod())
    | st.builds(KdMethod, temperature=st.floats(0.1, 100))
    | st.builds(
        DskdMethod,
        preset=st.sampled_from(["default", "paper"]),
        hash_bits=st.none() | st.integers(1, 4096),
        guide_clip=st.none() | st.floats(0.01, 10),
    ),
)


@given(_RECIPES)
def test_loads_back_to_an_equal_recipe(recipe):
    text = dump_recipe(recipe)
    parsed = parse_yaml(text, "f")
    assert parsed.faults == []
    assert Recipe.model_validate(parsed.value) == recipe
    assert dump_recipe(Recipe.model_validate(parsed.value)) == text
    assert yaml.safe_load(text)["validate"]["batches"] == [1, 3, 8]


def test_through_a_file(tmp_path):
    recipe = load_recipe("digits/resnet18-to-mobilenetv3_small_050", ["validate.images=17"])
    (tmp_path / "r.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(str(tmp_path / "r.yaml")) == recipe


def test_digests_change_only_where_the_recipe_does():
    one = load_recipe("digits/resnet18-to-mobilenetv3_small_050")
    two = load_recipe("digits/resnet18-to-mobilenetv3_small_050", ["train.lr=0.0123"])
    before, after = section_digests(one), section_digests(two)
    assert {key for key in before if before[key] != after[key]} == {"train"}
    assert set(before) == set(yaml.safe_load(dump_recipe(one)))
    # Canonical JSON by hand, for a section whose JSON is plain to see.
    assert before["report"] == hashlib.sha256(b'{"title":null}').hexdigest()
