from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_support import Finished, small_recipe

from dskd_compress.cli import main
from dskd_compress.recipe import dump_recipe

pytestmark = pytest.mark.usefixtures("no_document_yet", "forked_comparison")


@pytest.fixture
def file(finished: Finished, tmp_path: Path) -> str:
    path = tmp_path / "recipe.yaml"
    weights = finished.folder / "teacher.safetensors"
    recipe = small_recipe(f"teacher.checkpoint={weights}", "teacher.train=null", "train.epochs=1")
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    return str(path)


def test_one_table_and_one_document(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "compared")
    given = [file, "--methods", "none", "--variant", "cold=kd temperature=1", "--seeds", "0", "--out", out]
    assert main(["compare", *given, "--against", "none", "--json"]) == 0
    stdout, stderr = capsys.readouterr()
    document = json.loads(stdout)
    assert [method["label"] for method in document["methods"]] == ["none", "cold"]
    assert document["methods"][1]["settings"]["temperature"] == 1
    assert document["methods"][1]["interval"] is None
    assert "none minus it" in stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--methods", "kd", "--seeds", "one"], "--seeds"),
        (["--methods", "kd", "--against", "dskd"], "--against: 'dskd' is none of the methods"),
        (["--methods", "kd,kd"], "kd is there twice"),
        (["--methods", ""], "no method"),
        (["--methods", "kdd"], "kdd"),
        (["--variant", "kd"], "LABEL=METHOD"),
    ],
)
def test_mistakes(
    file: str, tmp_path: Path, given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", file, *given, "--out", str(tmp_path / "compared")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "compared").exists()
