from __future__ import annotations

from pathlib import Path

import pytest
from support import make_model

from dskd_compress.label_space import (
    ClassNames,
    find_timm_names,
    names_for_device,
    read_class_names,
    resolve_class_map,
)
from dskd_compress.timm_import import import_timm
from dskd_export.errors import RecipeError

NAMES = ClassNames(
    6, ["tench", "goldfish", "hen", "crane", "crane machine", "5"], [["fish, a"], [], [], ["Bird"], ["bird"]]
)
DATA = ("fish", "bird", "thing")


def test_names_indices_and_ranges() -> None:
    mapping = {"tench": "fish", "1": 0, "2-3": "bird", "crane machine": "2"}
    assert resolve_class_map(mapping, NAMES, DATA) == [[0, 1], [2, 3], [4]]


def test_a_name_wins_over_an_index() -> None:
    names = ClassNames(3, ["2", "a", "b"])
    assert resolve_class_map({"2": "x", "a": "y"}, names, ("x", "y")) == [[0], [1]]


def test_other_words_in_any_case_unless_two_classes_have_them() -> None:
    assert NAMES.find("FISH, A") == 0
    assert NAMES.find("bird") is None


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            {"tensh": "fish", "0": "fish", "2": "bird", "4": "thing"},
            r"teacher .*'tensh' \(.*tench\)",
        ),
        ({"0": "fsh", "2": "bird", "4": "thing"}, r"data .*'fsh' \(.*fish\)"),
        ({"0": "fish", "2": "bird"}, r"no class of the teacher .*'thing'"),
        ({"0-3": "fish", "2": "bird", "4": "thing"}, r"'hen' .*two classes"),
        ({"6": "fish", "0-9": "bird", "x": "y"}, r"'6', '0-9', 'x'.*data .*'y'"),
        ({"0": 3, "1": -1}, r"data .*'3', '-1'"),
    ],
)
def test_what_does_not_fit_is_named(mapping: dict[str, str | int], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        resolve_class_map(mapping, NAMES, DATA)


def test_unknown_names_are_reported() -> None:
    with pytest.raises(RecipeError, match=r"0 to 5.*teacher\.class_names"):
        resolve_class_map({"tench": "fish"}, ClassNames(6), DATA)


def test_imagenet_has_synsets_and_lemmas() -> None:
    names = find_timm_names(import_timm().create_model("test_resnet"))
    assert names.count == 1000
    assert names.names[1] == "n01443537"
    assert names.find("goldfish") == 1
    assert names.find("Carassius auratus") == 1
    assert names.find("maillot") is None  # of two classes
    assert find_timm_names(make_model("test_resnet")).names == ()  # ten other classes


def test_names_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("cat\n\ndog \n", encoding="utf-8")
    assert read_class_names(str(path), 2).names == ["cat", "dog"]
    with pytest.raises(RecipeError, match=r"teacher\.class_names: .* 2 .* 3 "):
        read_class_names(str(path), 3)
    path.write_text("cat\ncat\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="'cat'"):
        read_class_names(str(path), 2)
    with pytest.raises(RecipeError, match=r"teacher\.class_names: .*other.*imagenet-1k"):
        read_class_names(str(tmp_path / "other"), 2)
    assert read_class_names("imagenet-1k", 1000).find("tench") == 0


def test_names_on_the_device() -> None:
    """One's own; of classes that are only numbered ImageNet's, where there are as many; words for synsets."""
    assert names_for_device(("cat", "dog")) == (("cat", "dog"), None)
    assert names_for_device(tuple("0123456789")) == (tuple("0123456789"), None)
    names, words = names_for_device(tuple(map(str, range(1000))))
    assert (names[0], names[1], len(set(names))) == ("n01440764", "n01443537", 1000)
    assert words is not None
    assert words[1].startswith("goldfish")
    assert len(names_for_device(tuple(map(str, range(21841))))[0]) == 21841
    some = ("n01443537", "n02123045")
    assert names_for_device(some) == (some, (words[1], words[281]))
    assert names_for_device(("n01443537", "n99999999")) == (("n01443537", "n99999999"), None)
