from __future__ import annotations

import re
from pathlib import Path

import pytest
from run_support import QUIET, Finished, small_recipe

from dskd_compress.run_folder import RunFolder
from dskd_compress.stages.report import run_report
from dskd_export.documents.base import StageRecord, read_document
from dskd_export.errors import DataError


def text_of(path: Path) -> str:
    """The page without the escapes of Markdown."""
    return path.read_text(encoding="utf-8").replace("\\", "")


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_it_names_both_models_and_nothing_is_stale(name: str, finished: Finished) -> None:
    text = text_of(finished.folder / name)
    assert "test_resnet" in text
    assert "test_efficientnet" in text
    assert "STALE" not in text
    assert "ALTERED" not in text


def test_the_record(finished: Finished) -> None:
    record = read_document(finished.folder / "stages/report.json", StageRecord)
    assert set(record.outputs) == {"report.html", "report.md", "report.csv", "MODEL_CARD.md"}
    assert {"distill.json", "validation.json", "benchmark.json", "bundle/manifest.json"} <= set(record.inputs)


def test_a_title_of_ones_own(finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    path = run_report(small_recipe("report.title='Bolts <4> & nuts'"), folder, QUIET).html
    assert path == folder / "report.html"
    assert "Bolts &lt;4&gt; &amp; nuts" in path.read_text(encoding="utf-8")
    assert "Bolts <4>" not in path.read_text(encoding="utf-8")


def test_a_result_of_other_files_shows_as_stale(finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    with (folder / "bundle/manifest.json").open("a") as file:
        file.write("\n")
    run_report(finished.recipe, folder, QUIET)
    text = text_of(folder / "report.md")
    assert "STALE: the inputs of validate, benchmark" in text
    assert "ALTERED: output files of export" in text


def test_half_a_run_can_be_reported(finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    for name in ("validation.json", "benchmark.json", "benchmark.samples.npz"):
        (folder / name).unlink()
    for name in ("validate", "benchmark"):
        (folder / f"stages/{name}.json").unlink()
    run_report(finished.recipe, folder, QUIET)
    assert "test_efficientnet" in text_of(folder / "report.md")


def test_a_folder_without_results(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(str(tmp_path))):
        run_report(small_recipe(), RunFolder(tmp_path), QUIET)
    assert list(tmp_path.iterdir()) == []
