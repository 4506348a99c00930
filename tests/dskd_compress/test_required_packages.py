from __future__ import annotations

import sys
from pathlib import Path

import pytest
from run_support import QUIET, Finished, small_recipe

from dskd_compress.run_folder import RunFolder
from dskd_compress.stages.export import run_export
from dskd_compress.stages.pipeline import run_pipeline
from dskd_compress.stages.tune import run_tune
from dskd_export.errors import MissingExtra

EVERY = ("modelopt", "onnxconverter_common")


@pytest.fixture
def without_quant(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in EVERY:
        monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.usefixtures("without_quant")
@pytest.mark.parametrize("keys", [["export.precisions=[fp16]"], ["tune={}"], ["export.precisions=[bf16]"]])
def test_run_refuses_before_it_trains(keys: list[str], tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    before = sorted(folder.path.rglob("*"))
    with pytest.raises(MissingExtra, match=r"dskd-compress\[quant\]") as refused:
        list(run_pipeline(small_recipe(*keys), folder, QUIET))
    assert refused.value.exit_code == 4
    assert sorted(folder.path.rglob("*")) == before


@pytest.mark.parametrize("module", ["onnx", "onnxscript", "onnxruntime"])
def test_run_without_onnx(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(MissingExtra, match=rf"^{module} .*dskd-compress\[onnx\]"):
        list(run_pipeline(small_recipe(), folder, QUIET))


@pytest.mark.usefixtures("without_quant")
def test_stages_refuse_before_they_read_anything(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "nothing")
    with pytest.raises(MissingExtra, match=r"onnxconverter-common.*fp16"):
        run_export(small_recipe("export.precisions=[fp16,int8]"), folder, QUIET)
    with pytest.raises(MissingExtra, match=r"nvidia-modelopt.*tune"):
        run_tune(small_recipe("tune={}"), folder, QUIET)


def test_tune_needs_what_modelopt_does_not_declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(MissingExtra, match=r"requests.*tune.*dskd-compress\[quant\]"):
        run_tune(small_recipe("tune={}"), RunFolder(tmp_path), QUIET)


@pytest.mark.usefixtures("without_quant")
def test_a_finished_run_needs_none_of_it(finished: Finished) -> None:
    assert not any(outcome.ran for outcome in run_pipeline(finished.recipe, finished.folder, QUIET))
