from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dskd_export.documents.base import StageRecord, read_document
from dskd_export.report import build_report
from dskd_export.report.staleness import FileHashes, StageCheck, check_stages


def checks_of(folder: Path) -> dict[str, StageCheck]:
    stages = [read_document(path, StageRecord) for path in (folder / "stages").glob("*.json")]
    return {check.record.stage: check for check in check_stages(stages, FileHashes(folder))}


def test_an_unchanged_run_is_not_stale(full_run: Path) -> None:
    checks = checks_of(full_run)
    assert list(checks) == ["train", "distill", "export", "validate", "benchmark"]
    assert not any(check.stale or check.altered for check in checks.values())
    states = {item.name: item.state for item in checks["distill"].inputs}
    assert states == {"teacher.safetensors": "same", "data": "outside"}


def test_a_changed_input_makes_its_stage_and_the_later_ones_stale(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    (folder / "student.safetensors").write_bytes(b"another student")
    checks = checks_of(folder)
    assert {name for name, check in checks.items() if check.stale} == {"export", "validate", "benchmark"}
    assert "student.safetensors has changed since" in checks["export"].stale_because[0]
    assert checks["distill"].altered == ("student.safetensors has changed since the stage wrote it",)
    report = build_report(folder)
    assert "STALE: export: student.safetensors has changed since" in report.markdown
    assert "The verdict was PASS, for files that have changed since" in report.html
    assert "**PASS**: " not in report.markdown


def test_a_missing_output_is_told(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    (folder / "bundle" / "manifest.json").unlink()
    checks = checks_of(folder)
    assert checks["validate"].stale_because[0] == "bundle/manifest.json is gone since the stage read it"
    assert checks["export"].altered


def test_an_earlier_report_is_not_judged(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    record = read_document(folder / "stages" / "export.json", StageRecord)
    old = record.model_copy(update={"stage": "report", "inputs": {"distill.json": "0" * 64}})
    (folder / "stages" / "report.json").write_text(old.model_dump_json())
    assert "report" not in checks_of(folder)


@pytest.mark.parametrize("name", ["/etc/hostname", "../outside", "a/../../outside", "link"])
def test_nothing_outside_the_folder_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_text("secret")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "outside")
    assert FileHashes(folder).sha256(name) is None
