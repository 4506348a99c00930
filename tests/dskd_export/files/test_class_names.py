from __future__ import annotations

import pytest

from dskd_export.errors import DataError
from dskd_export.files.names import check_class_names, describe_difference, find_look_alikes


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a", "b", "a"], "two classes are named 'a'"),
        (["caf\u00e9", "cafe\u0301"], r"'caf\\xe9' \(composed\) and 'cafe\\u0301' \(decomposed\)"),
        (["big cat", "big  cat "], "'big cat' and 'big  cat '"),
        (["a\u00a0b", "a b"], r"'a\\xa0b' and 'a b'"),
        (["a", "caf\udce9"], r"'caf\\udce9' is not valid Unicode"),
    ],
)
def test_names_that_results_cannot_tell_apart(names: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        check_class_names(names, "images.npz")
    assert caught.value.message.startswith("images.npz: ")
    assert caught.value.message.isascii()


def test_names_that_may_stand_next_to_each_other() -> None:
    check_class_names(["a", "A", "1", "01", "", "=cmd", "x" * 5000, "\ufeffbom", "<b>", "café"], "images.npz")


def test_look_alikes() -> None:
    assert find_look_alikes(["cafe\u0301", "dog", "Cat ", "same"], ["caf\u00e9", "cat", "same"]) == [
        ("cafe\u0301", "caf\u00e9"),
        ("Cat ", "cat"),
    ]
    assert describe_difference("Cat ", "cat") == "'Cat ' and 'cat'"
