from __future__ import annotations

import json
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dskd_compress.recipe.yaml_text import MAX_CHARACTERS, dump_yaml, parse_yaml

_TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cn")), max_size=12)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(_TEXT, below, max_size=4),
    max_leaves=20,
)


@given(_VALUES)
def test_reads_what_it_writes(value):
    parsed = parse_yaml(dump_yaml(value), "f")
    assert parsed.faults == []
    assert parsed.value == value
    assert yaml.safe_load(dump_yaml(value)) == value


def test_lines_of_keys_and_items():
    text = "a: 1\nb:\n  c: 2\n  d:\n    - 5\n    - {e: 6}\n"
    parsed = parse_yaml(text, "f")
    assert parsed.value == {"a": 1, "b": {"c": 2, "d": [5, {"e": 6}]}}
    assert parsed.lines == {
        ("a",): 1,
        ("b",): 2,
        ("b", "c"): 3,
        ("b", "d"): 4,
        ("b", "d", 0): 5,
        ("b", "d", 1): 6,
        ("b", "d", 1, "e"): 6,
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("-2E+3", -2000.0), (".5e1", 5.0), ("1.0e-4", 1e-4), ("3e", "3e"), ("e3", "e3")],
)
def test_exponents_are_numbers(text, value):
    assert parse_yaml(text, "f").value == value


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "a: is there twice, first in line 1"),
        ("a:\n  b: [1, 2\nc: 3\n", 3, "not valid YAML"),
        ("a: 1\n\tb: 2\n", 2, "not valid YAML"),
        ("a: *missing\n", 1, "undefined alias"),
        ("a: &a [*a]\n", 1, "an alias that refers to itself"),
        ("a: &a\n  <<: *a\n", 2, "an alias that refers to itself"),
        ("a: 1\nb: !!python/object/apply:os.system ['true']\n", 2, "is not allowed here"),
        ("a: !!python/name:os.system x\n", 1, "put it in quotes"),
        ("a: 2024-01-01\n", 1, "!!timestamp; put it in quotes"),
        ("a: !!binary aGk=\n", 1, "!!binary"),
        ("1: a\n", 1, "the key '1' is not text"),
        ("[a, b]: c\n", 1, "is not text"),
        ("a: .inf\n", 1, "a: must be a finite number, not .inf"),
        ("a:\n  - 1\n  - .nan\n", 3, "a[1]: must be a finite number"),
        ("a: 1\n---\nb: 2\n", 2, "not valid YAML: but found another document"),
        ("a: 1\nb: \x07\n", 2, "control character"),
        ("<<: 3\n", 1, "<< merges mappings only"),
        ("a: !!int x\n", 1, "is not a valid !!int"),
        ('a: "x\\udcff"\n', 1, "is not Unicode text"),
        ("a: " + "9" * 5000, 1, "is not a valid !!int"),
    ],
)
def test_faults_name_their_line(text, line, what):
    faults = [str(fault) for fault in parse_yaml(text, "f.yaml").faults]
    assert len(faults) == 1, faults
    assert faults[0].startswith(f"f.yaml:{line}: ")
    assert what in faults[0]


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_json_text_is_yaml(text):
    parsed = parse_yaml(json.dumps(text), "f")
    assert (parsed.value, parsed.faults) == (text, [])


def test_alias_bomb_is_bounded():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    parsed = parse_yaml("\n".join(lines), "f")
    assert parsed.value is None
    assert "aliases are expanded" in parsed.faults[0].what


def test_merge_bomb_is_bounded():
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i}: &a{i}\n  <<: [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    parsed = parse_yaml("\n".join(lines), "f")
    assert parsed.value is None
    assert "aliases are expanded" in parsed.faults[0].what


@pytest.mark.parametrize("text", ["[" * 20_000, "{a: " * 5_000, "- " * 20_000])
def test_deep_nesting_is_a_fault_not_a_crash(text):
    parsed = parse_yaml(text, "f")
    assert parsed.value is None
    assert len(parsed.faults) == 1


def test_size_is_bounded():
    assert "KiB" in parse_yaml("a" * (MAX_CHARACTERS + 1), "f").faults[0].what


def test_anchors_and_merges_work():
    text = "base: &b {lr: 1, epochs: 2}\nother: &o {lr: 7, x: 1}\ntrain:\n  <<: [*b, *o]\n  epochs: 5\n"
    parsed = parse_yaml(text, "f")
    assert parsed.faults == []
    assert parsed.value["train"] == yaml.safe_load(text)["train"] == {"lr": 1, "epochs": 5, "x": 1}
    assert parsed.lines[("train", "epochs")] == 5


@given(st.text(max_size=60))
def test_any_text_gives_a_value_or_a_fault(text):
    parsed = parse_yaml(text, "f")
    assert all(str(fault).startswith("f") for fault in parsed.faults)
    if isinstance(parsed.value, float):
        assert math.isfinite(parsed.value)


@pytest.mark.parametrize("text", ["[" + "1," * 130_000 + "1]", "- 1\n" * 65_000, "? 1\n" * 50_000])
def test_values_are_counted_while_they_are_read(text: str) -> None:
    (fault,) = parse_yaml(text, "x").faults
    assert fault.what == "more than 20000 values"
