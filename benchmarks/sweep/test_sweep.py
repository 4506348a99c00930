"""The committed tables of all architectures, and a sample of them computed again: another one every day."""

from __future__ import annotations

import datetime
import json
import random
from typing import Any

import pytest
from export_parity import export_with_parity
from pair_steps import train_with_partners
from sweep import PACKAGED, RESULTS, list_architectures, one_survey, read_versions, run

from dskd_compress.timm_import import import_timm

TODAY = random.Random(datetime.date.today().toordinal())
DOCUMENT: dict[str, Any] = json.loads(PACKAGED.read_text(encoding="utf-8"))
TABLE: dict[str, dict[str, Any]] = DOCUMENT["architectures"]
STEPS: list[dict[str, Any]] = json.loads((RESULTS / "steps.json").read_text(encoding="utf-8"))["classes"]
EXPORTS: list[dict[str, Any]] = json.loads((RESULTS / "export.json").read_text(encoding="utf-8"))["classes"]


def test_the_table_is_of_this_timm_and_whole() -> None:
    """A newer timm needs a new table: run the commands in results/README.md."""
    assert DOCUMENT["versions"]["timm"] == import_timm().__version__
    assert set(TABLE) == set(list_architectures())
    assert len(TABLE) >= 1371


def test_nearly_all_have_taps_and_the_others_a_reason() -> None:
    resolved = [name for name, facts in TABLE.items() if facts.get("taps", {}).get("vector")]
    assert len(resolved) >= 0.99 * len(TABLE)
    assert all(facts["heads"]["vector"] for name, facts in TABLE.items() if name in resolved)
    assert all(TABLE[name]["refused"]["model"] for name in set(TABLE) - set(resolved))
    assert not [name for name, facts in TABLE.items() if "unexplained" in facts]


def test_nearly_all_classes_train_and_teach() -> None:
    assert {line["model_class"] for line in STEPS} == {facts["model_class"] for facts in TABLE.values()}
    passed = [line for line in STEPS if line.get("passed")]
    classifiers = len(STEPS) - len(_encoders())
    assert classifiers >= 93
    assert len(passed) >= 95 / 97 * classifiers
    assert all(line.get("passed") or line["refused"] for line in STEPS)
    for line in passed:
        assert len(line["student"]) == len(line["teacher"]) == 2


def _encoders() -> set[str]:
    """Classes that have no classifier: nothing to distil to or from."""
    return {facts["model_class"] for facts in TABLE.values() if "model" in facts.get("refused", {})}


_SMALL = [name for name, facts in TABLE.items() if facts.get("parameters", 0) <= 50e6]


@pytest.mark.parametrize("name", TODAY.sample(_SMALL, 12))
def test_a_sample_is_found_again(name: str) -> None:
    assert one_survey(name) == {"name": name, **TABLE[name]}


_QUICK = [
    line
    for line in STEPS
    if line.get("passed") and line["size"] <= 96 and TABLE[line["name"]].get("parameters", 1e9) <= 8e6
]


@pytest.mark.parametrize("line", TODAY.sample(_QUICK, 2), ids=lambda line: line["name"])
def test_a_sample_trains_and_teaches_again(line: dict[str, Any]) -> None:
    again = train_with_partners(line["name"], [line["size"]])
    assert {"model_class": line["model_class"], **again} == line


def test_nearly_all_classes_are_exported_with_parity() -> None:
    assert {line["model_class"] for line in EXPORTS} == {facts["model_class"] for facts in TABLE.values()}
    passed = [line for line in EXPORTS if "max_abs_relative" in line]
    assert len(passed) >= 90
    assert all(line["max_abs_relative"] <= 1e-4 for line in passed)
    assert all(line["refused"] for line in EXPORTS if line not in passed)
    assert not [line for line in EXPORTS if "unexplained" in line]


def _same_export(again: dict[str, Any], line: dict[str, Any]) -> bool:
    """Except the time, and the rounding of a difference that is all rounding."""
    varies = {"seconds", "max_abs_relative"}
    return {key: again.get(key) for key in line if key not in varies} == {
        key: value for key, value in line.items() if key not in varies
    } and again.get("max_abs_relative", 0.0) <= 1e-4


_SHORT = [line for line in EXPORTS if line.get("parameters", 1e9) <= 6e6 and line["nodes"] <= 300]


@pytest.mark.parametrize("line", TODAY.sample(_SHORT, 2), ids=lambda line: line["name"])
def test_a_sample_is_exported_again(line: dict[str, Any]) -> None:
    again = {"model_class": line["model_class"], **export_with_parity(line["name"])}
    assert _same_export(again, line), again


@pytest.mark.slow
@pytest.mark.parametrize("line", EXPORTS, ids=lambda line: line["name"])
def test_every_class_is_exported_again(line: dict[str, Any]) -> None:
    again = {"model_class": line["model_class"], **export_with_parity(line["name"])}
    assert _same_export(again, line), again


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_every_architecture_is_found_again(name: str) -> None:
    assert one_survey(name) == {"name": name, **TABLE[name]}


@pytest.mark.slow
@pytest.mark.parametrize("line", STEPS, ids=lambda line: line["name"])
def test_every_class_trains_and_teaches_again(line: dict[str, Any]) -> None:
    assert {"model_class": line["model_class"], **train_with_partners(line["name"])} == line


def test_a_shard_goes_on_where_it_stopped(tmp_path: Any) -> None:
    asked: list[str] = []

    def one(name: str) -> dict[str, Any]:
        asked.append(name)
        if name == "b":
            raise KeyError("not typed")
        return {"name": name}

    run("shapes", "abcdef", "1/2", one, tmp_path)
    run("shapes", "abcdefgh", "1/2", one, tmp_path)
    run("shapes", "abcdef", "2/2", one, tmp_path)
    assert asked == ["a", "c", "e", "g", "b", "d", "f"]
    lines = [json.loads(text) for path in sorted(tmp_path.glob("*.jsonl")) for text in path.open()]
    assert [line["name"] for line in lines if "unexplained" in line] == ["b"]


def test_the_page_says_what_the_tables_say() -> None:
    page = (RESULTS / "README.md").read_text(encoding="utf-8")
    assert f"Taps of {len(TABLE)} architectures" in page
    assert f"timm {read_versions()['timm']}" in page
