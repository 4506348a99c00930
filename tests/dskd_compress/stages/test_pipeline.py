from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_support import QUIET, SMALL_STAGES, Finished, small_recipe

from dskd_compress.run_folder import RunFolder
from dskd_compress.stages import pipeline
from dskd_compress.stages.pipeline import run_pipeline, select_stages
from dskd_export.documents.base import StageRecord, read_document
from dskd_export.documents.benchmark import BenchmarkDocument
from dskd_export.documents.training import TrainingDocument
from dskd_export.documents.validation import ValidationDocument
from dskd_export.errors import DataError, UsageError


def ran(outcomes: object) -> dict[str, str]:
    """Stage -> why it ran; those that were skipped are left out."""
    return {outcome.stage: outcome.why for outcome in outcomes if outcome.ran}  # type: ignore[attr-defined]


# --- the first run


def test_every_stage_ran_once_in_order(finished: Finished) -> None:
    assert [outcome.stage for outcome in finished.outcomes] == list(SMALL_STAGES)
    assert ran(finished.outcomes) == dict.fromkeys(SMALL_STAGES, "it has not run yet")


def test_every_document_can_be_read(finished: Finished) -> None:
    folder = finished.folder
    for name, kind in {
        "teacher.json": TrainingDocument,
        "distill.json": TrainingDocument,
        "validation.json": ValidationDocument,
        "benchmark.json": BenchmarkDocument,
        **{f"stages/{stage}.json": StageRecord for stage in SMALL_STAGES},
    }.items():
        document = read_document(folder / name, kind)
        assert kind.model_validate_json(document.model_dump_json()) == document
        provenance = document.provenance  # type: ignore[attr-defined]
        assert (provenance.seed, provenance.device.device) == (0, "cpu")
        assert provenance.seconds > 0
        assert {"torch", "timm", "onnx", "onnxruntime"} <= set(provenance.versions)


def test_only_the_files_of_the_contract_are_there(finished: Finished) -> None:
    files = {
        path.relative_to(finished.folder.path).as_posix()
        for path in finished.folder.path.rglob("*")
        if path.is_file()
    }
    written = {
        name
        for stage in SMALL_STAGES
        for name in json.loads((finished.folder / f"stages/{stage}.json").read_text())["outputs"]
    }
    best = {
        "teacher": read_document(finished.folder / "teacher.json", TrainingDocument).best_epoch,
        "student": read_document(finished.folder / "distill.json", TrainingDocument).best_epoch,
    }
    checkpoints = {f"checkpoint/{role}/last.pt" for role in best}
    checkpoints |= {f"checkpoint/{role}/best-{epoch:04d}.pt" for role, epoch in best.items()}
    assert files == written | checkpoints | {"recipe.yaml"} | {f"stages/{stage}.json" for stage in SMALL_STAGES}


# --- the next run


def test_nothing_changed(finished: Finished) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.folder.path.rglob("*")}
    outcomes = list(run_pipeline(finished.recipe, finished.folder, QUIET))
    assert [outcome.stage for outcome in outcomes] == list(SMALL_STAGES)
    assert all(not outcome.ran and outcome.why == "unchanged" for outcome in outcomes)
    assert {path: path.stat().st_mtime_ns for path in finished.folder.path.rglob("*")} == before


def test_a_limit_of_the_gate_runs_validate_and_report_alone(finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    recipe = small_recipe("validate.min_cosine=0.999")
    assert ran(run_pipeline(recipe, folder, QUIET)) == {
        "validate": "validate changed in the recipe",
        "report": "validation.json changed",
    }
    document = read_document(folder / "validation.json", ValidationDocument)
    (fp32,) = document.judgements
    assert {check.name: check.limit for check in fp32.checks}["cosine"] == 0.999
    # The commands that read the run folder go on with what was asked for last.
    assert folder.read_recipe() == recipe
    assert ran(run_pipeline(recipe, folder, QUIET)) == {}


def test_a_changed_title_runs_the_report_alone(finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    outcomes = run_pipeline(small_recipe("report.title=Bolts"), folder, QUIET)
    assert ran(outcomes) == {"report": "report changed in the recipe"}


def test_from_runs_a_stage_that_did_not_change(finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    bundle = (folder / "bundle/manifest.json").stat().st_mtime_ns
    outcomes = list(run_pipeline(finished.recipe, folder, QUIET, first="export", last="validate"))
    assert [outcome.stage for outcome in outcomes] == ["export", "validate"]
    # The same student gives the same bundle, so what was measured on it still holds.
    assert ran(outcomes) == {"export": "requested with --from"}
    assert (folder / "bundle/manifest.json").stat().st_mtime_ns > bundle
    for name in ("manifest.json", "model.fp32.onnx"):
        assert (folder.bundle / name).read_bytes() == (finished.folder.bundle / name).read_bytes()


def test_an_altered_model_would_be_exported_again(finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    with (folder / "bundle/model.fp32.onnx").open("ab") as file:
        file.write(b"\0")
    assert folder.why_rerun("export", finished.recipe) == "bundle/model.fp32.onnx was altered"


def test_a_gate_that_fails_does_not_stop_the_report(finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    outcomes = run_pipeline(small_recipe("validate.max_abs_relative=1e-30"), folder, QUIET)
    assert set(ran(outcomes)) == {"validate", "report"}
    document = read_document(folder / "validation.json", ValidationDocument)
    assert not document.passed
    assert "FAIL" in (folder / "report.html").read_text(encoding="utf-8")


def test_what_was_not_run_before_a_failure_runs_next_time(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished.copy(tmp_path / "run")
    recipe = small_recipe("validate.max_kl=0.5", "report.title=Bolts")

    def fail(*_: object) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setitem(pipeline.RUN, "report", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        list(run_pipeline(recipe, folder, QUIET))
    monkeypatch.undo()
    assert set(ran(run_pipeline(recipe, folder, QUIET))) == {"report"}


def test_nothing_is_written_where_the_data_is_not_there(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(DataError):
        list(run_pipeline(small_recipe(f"data.source={tmp_path / 'none'}"), folder, QUIET))
    assert not folder.path.exists()


# --- which stages


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (None, None, SMALL_STAGES),
        ("export", None, SMALL_STAGES[2:]),
        (None, "distill", SMALL_STAGES[:2]),
        ("validate", "benchmark", ("validate", "benchmark")),
        ("report", "report", ("report",)),
    ],
)
def test_from_and_to(first: str | None, last: str | None, expected: tuple[str, ...]) -> None:
    assert select_stages(small_recipe(), first, last) == list(expected)
    without = [name for name in expected if name != "train"]
    assert select_stages(small_recipe("teacher.train=null"), first, last) == without


@pytest.mark.parametrize(
    ("first", "last", "message"),
    [
        ("exprt", None, r"--from: 'exprt'.*train, distill, tune, export"),
        (None, "build", r"--to.*'build'"),
        ("report", "train", r"--from report.*--to train"),
    ],
)
def test_ranges_that_are_none(first: str | None, last: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        select_stages(small_recipe(), first, last)
