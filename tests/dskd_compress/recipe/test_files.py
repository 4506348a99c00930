from __future__ import annotations

import hashlib
import os
import re
import shlex
from pathlib import Path

import pytest
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
from dskd_compress.recipe import (
    DEFAULT_RECIPE,
    dump_recipe,
    list_recipes,
    load_recipe,
    read_recipe_text,
    section_digests,
)
from dskd_compress.recipe.files import explain_other
from dskd_compress.recipe.yaml_text import parse_yaml
from dskd_compress.run_folder import RunFolder
from dskd_export.errors import DataError, RecipeError

FIVE_FAULTS = """\
# a comment, so that lines and keys do not go together
name: five

data:
  source: digits
  val_fraction: 2
  augment:
    hfilp: 0
teacher:
  name: resnet34
student:
  name: resnet18
train:
  epochs: three
  lr: 0.1
  lr: 0.2
metod:
  name: dskd
"""


def error_of(text: str | bytes, tmp_path: Path) -> RecipeError:
    path = tmp_path / "r.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path))
    return caught.value


def test_five_faults_five_lines(tmp_path):
    error = error_of(FIVE_FAULTS, tmp_path)
    where = tmp_path / "r.yaml"
    assert error.message.splitlines() == [
        f"{where}: 5 faults",
        f"{where}:6: data.val_fraction: must be below 1, not 2",
        f"{where}:8: data.augment.hfilp: unknown key, did you mean 'hflip'?",
        f"{where}:14: train.epochs: must be a whole number, not 'three'",
        f"{where}:16: train.lr: is there twice, first in line 15",
        f"{where}:17: metod: unknown section, did you mean 'method'?",
    ]
    assert error.exit_code == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ":1: the recipe is empty"),
        ("# only a comment\n", ":1: the recipe is empty"),
        ("- a\n- b\n", ":1: a recipe is made of 'section:' keys, this is a list"),
        ("just words\n", "this is a str"),
        ("a: [1\nb: 2\n", ":2: not valid YAML"),
        (b"name: ok\nseed: \xff\n", ":2: not UTF-8 text"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "not UTF-8 text"),
        ("teacher:\n  name: a\nstudent:\n  nam: b\n", ":4: student.nam: unknown key, did you mean 'name'?"),
        ("teacher:\n  name: a\n\nstudent:\n  pretrained: true\n", ":4: student.name: is required"),
    ],
)
def test_bad_files(text, expected, tmp_path):
    assert expected in error_of(text, tmp_path).message


def test_windows_text_is_fine(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xef\xbb\xbfteacher: {name: a}\r\nstudent: {name: b}\r\n")
    assert load_recipe(str(path)).student.name == "b"


@pytest.mark.parametrize(
    "typed", ["digits/resnet18-to-mobilenetv3", "resnet18-to-mobilenetv3_small_050", DEFAULT_RECIPE + "x"]
)
def test_a_missing_recipe_names_the_closest(typed):
    with pytest.raises(RecipeError) as caught:
        load_recipe(typed)
    assert typed in caught.value.message
    assert DEFAULT_RECIPE in (caught.value.hint or "")


def test_a_missing_recipe_with_nothing_close():
    with pytest.raises(RecipeError) as caught:
        load_recipe("zzzz")
    assert caught.value.hint == "All recipes: dskd-compress recipes list"


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(RecipeError, match=re.escape(str(tmp_path))):
        load_recipe(str(tmp_path))
    (tmp_path / "recipe.yaml").write_text("")
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(tmp_path))
    assert str(tmp_path / "recipe.yaml") in (caught.value.hint or "")


def test_by_name_with_and_without_suffix_and_by_path():
    info = next(info for info in list_recipes() if info.name == DEFAULT_RECIPE)
    by_name = load_recipe(DEFAULT_RECIPE)
    assert by_name == load_recipe(DEFAULT_RECIPE + ".yaml") == load_recipe(str(info.path)) == info.recipe
    assert read_recipe_text(DEFAULT_RECIPE) == info.path.read_text(encoding="utf-8")


def test_overrides_are_applied_to_a_file():
    recipe = load_recipe(DEFAULT_RECIPE, ["train.epochs=3", "train.warmup_epochs=0", "teacher.train={epochs: 2}"])
    assert recipe.train.epochs == 3
    assert recipe.teacher.train == TrainSection(epochs=2)


def test_an_override_takes_the_blame_from_the_line(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("teacher: {name: a}\nstudent: {name: b}\ntrain:\n  lr: 0.1\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path), ["train.lr=-1"])
    assert caught.value.message == "--set train.lr=-1: train.lr: must be above 0, not -1"


def test_paths_count_from_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "r.yaml").write_text(
        "data: {source: images}\nteacher: {name: a, checkpoint: w.safetensors}\nstudent: {name: b}\n"
    )
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("sub/r.yaml")
    assert recipe.data.source == "images"
    assert recipe.teacher.checkpoint == Path("w.safetensors")


def test_a_recipe_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    path.touch()
    os.truncate(path, 6_000_000_000)
    for read in (load_recipe, read_recipe_text):
        with pytest.raises(RecipeError, match=r"huge\.yaml.* 6,000,000,000 .* 1,048,576"):
            read(str(path))


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


@pytest.mark.parametrize("split", ["", "a", "train/a"])
def test_a_folder_of_images_in_place_of_a_recipe(tmp_path: Path, split: str) -> None:
    images = tmp_path / "my photos"
    (images / split).mkdir(parents=True)
    (images / split / "one.JPG").touch()
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(images))
    assert shlex.split(caught.value.hint or "")[:4] == ["dskd-compress", "run", "--data", str(images)]
    with pytest.raises(DataError) as also:
        RunFolder(images).read_recipe()
    assert also.value.hint == caught.value.hint
    assert shlex.split(also.value.hint or "")[4:] == ["--teacher", "resnet34", "--student", "resnet18"]
    assert explain_other(tmp_path / "none") is None
    with pytest.raises(DataError) as typed:
        RunFolder(images).read_recipe(["teacher.name=resnet50", 'student.name="test_vit"'])
    assert shlex.split(typed.value.hint or "")[4:] == ["--teacher", "resnet50", "--student", "test_vit"]


@pytest.mark.parametrize(
    ("file", "flag"), [("x.npz", "--data"), ("x.tar", "--data"), ("x.pth", "--teacher-checkpoint")]
)
def test_a_file_of_something_else_in_place_of_a_recipe(tmp_path: Path, file: str, flag: str) -> None:
    (tmp_path / file).write_bytes(bytes(range(256)))
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(tmp_path / file))
    words = shlex.split(caught.value.hint or "")
    assert words[words.index(flag) + 1] == str(tmp_path / file)


def test_a_bundle_in_place_of_a_run(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "manifest.json").touch()
    with pytest.raises(DataError, match="is a bundle"):
        RunFolder(bundle).read_recipe()
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(DataError) as caught:
        RunFolder(bundle).read_recipe()
    assert str(tmp_path) in (caught.value.hint or "")
