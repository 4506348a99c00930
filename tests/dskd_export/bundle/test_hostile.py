"""Hundreds of damaged and hostile bundles, in a separate process; made by `helpers/hostile_bundles.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from readme_blocks import ROOT

# A second of processor time is the promise; this is only not to fail where a machine is slow.
LIMIT_S = 5.0


@pytest.fixture(
    scope="module", params=[pytest.param(1, marks=pytest.mark.slow, id="all"), pytest.param(7, id="some")]
)
def every(request: pytest.FixtureRequest) -> int:
    """One in so many hostile bundles is tried."""
    return int(request.param)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, every: int) -> list[dict[str, Any]]:
    """One entry for each way of reading each bundle."""
    folder = tmp_path_factory.mktemp("hostile")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/helpers/hostile_bundles.py"), str(folder), str(every)],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "helpers"), *sys.path])},
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"the interpreter ended behind {lines[-1:]}: {done.stderr[-2000:]}"
    return [json.loads(line) for line in lines]


def test_there_are_enough_and_the_watch_sees(results: list[dict[str, Any]], every: int) -> None:
    *rest, control = results
    assert len([result for result in rest if result["refused"]]) > 600 / every
    assert len({result["name"] for result in rest if "bundle" not in result["name"]}) > 600 / every
    assert control["name"] == "control"
    assert len(control["outside"]) == 1
    assert control["outside"][0].endswith("spec.json")


def test_sound_ones_are_not_refused(results: list[dict[str, Any]]) -> None:
    sound = [result for result in results if result["name"].rpartition(": ")[2] in ("sound", "sound bundle")]
    assert len(sound) >= 5
    assert [result for result in sound if result["refused"] or result["message"]] == []


def test_every_other_one_is_refused_in_one_line(results: list[dict[str, Any]]) -> None:
    hostile = [
        result for result in results[:-1] if result["name"].rpartition(": ")[2] not in ("sound", "sound bundle")
    ]
    assert [result for result in hostile if not result["refused"]] == []
    assert [result for result in hostile if not result["message"].isprintable()] == []


def test_nothing_else_is_opened_imported_or_run(results: list[dict[str, Any]], tmp_path: Path) -> None:
    assert [result for result in results[:-1] if result["outside"]] == []
    assert not (Path.cwd() / "pickle_was_run").exists()


def test_none_takes_long(results: list[dict[str, Any]]) -> None:
    assert [result for result in results if result["cpu_s"] > LIMIT_S] == []
