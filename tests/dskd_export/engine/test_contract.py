from __future__ import annotations

import copy
import re

import engine_contract as contract
import pytest
from engine_contract import ENGINE, MODULE, SERVES

PAIRS = [(file, name) for file, names in SERVES.items() for name in names]


@pytest.fixture(scope="module")
def api():
    return contract.load_api()


def source(file: str) -> str:
    return (ENGINE / file).read_text(encoding="utf-8")


def test_the_lists_are_those_of_four_bindings(api):
    assert set(api) == set(SERVES["common.py"])
    assert all(len(content["names"]) > 100 for content in api.values())


@pytest.mark.parametrize(("file", "name"), PAIRS)
def test_all_that_an_adapter_touches_is_there(file, name, api):
    found = list(contract.touches(source(file)))
    assert len(found) >= (3 if file in ("trt10.py", "trt11.py") else 10)
    assert contract.missing(source(file), api[name]) == []


@pytest.mark.parametrize(("file", "name"), PAIRS)
def test_a_name_that_is_taken_from_the_list_is_missed(file, name, api):
    touched = {(touch.owner, touch.attribute) for touch in contract.touches(source(file))}
    for owner, attribute in touched - {(owner, "__init__") for owner, _ in touched}:
        less = copy.deepcopy(api[name])
        if owner == MODULE:
            less["names"].remove(attribute)
        elif owner in less["enums"]:
            less["enums"][owner].remove(attribute)
        else:
            less["classes"][owner].remove(attribute)
        missed = {(touch.owner, touch.attribute) for touch in contract.missing(source(file), less)}
        assert missed == {(owner, attribute)}


@pytest.mark.parametrize(
    ("file", "other", "attribute"),
    [
        ("trt11.py", "tensorrt_bindings 10.13.3.9", "ADJUST_FOR_DLA"),
        ("trt11.py", "tensorrt_bindings 10.13.3.9", "INCLUDE_REFIT"),
        ("rtx.py", "tensorrt_bindings 11.4.0.106", "set_compute_capability"),
        ("rtx.py", "tensorrt_bindings 10.16.1.11", "get_engine_validity"),
    ],
)
def test_the_generations_do_differ(file, other, attribute, api):
    assert attribute in {touch.attribute for touch in contract.missing(source(file), api[other])}


# What a network of weak types is built with: gone in TensorRT 11, and never used here in any generation.
WEAK = (
    r"BuilderFlag\.(FP16|INT8|BF16|FP8|INT4|FP4|OBEY|PREFER)\w*",
    r"EXPLICIT_BATCH",
    r"IInt8\w*|int8_calibrator|set_calibration_profile|QuantizationFlag",
    r"platform_has_\w+",
    r"build_engine_with_config|IAlgorithmSelector|algorithm_selector",
    r"layer\.precision|set_output_type",
)


@pytest.mark.parametrize("pattern", WEAK)
def test_weak_typing_is_never_named(pattern):
    packages = [ENGINE.parent, ENGINE.parents[2] / "dskd_compress"]
    files = [file for package in packages for file in package.rglob("*.py")]
    assert len(files) > 100
    named = [
        (file.name, match[0]) for file in files for match in re.finditer(pattern, file.read_text(encoding="utf-8"))
    ]
    assert named == []


def test_only_adapters_and_generations_know_versions():
    allowed = {*SERVES, "generations.py", "__init__.py"}
    for file in ENGINE.glob("*.py"):
        if file.name not in allowed:
            text = file.read_text(encoding="utf-8")
            assert not re.search(r"\b(1[0-9])\.[0-9]+\b.*(version|trt)|startswith\(.1[01]", text), file.name
            assert "import tensorrt" not in text, file.name
