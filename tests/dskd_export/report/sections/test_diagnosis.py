"""The panel that says whether the distillation was sound."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from dskd_export.documents.base import read_document
from dskd_export.documents.training import DiagnosisRecord, Finding, TeacherFacts, TrainingDocument
from dskd_export.report import build_report
from dskd_export.report.blocks import Figure, Gallery, Note
from dskd_export.report.load import load_run
from dskd_export.report.sections import diagnosis, training
from dskd_export.report.tables import Table

FINDING = Finding(
    kind="exploding_term",
    step=3,
    term="lsh",
    severity="warning",
    seen="The loss term 'lsh' is 3e+05.",
    means="The gradient is all this term's.",
    cure="Lower its weight.",
)


def look(step: int, ce: float = 1.0, lsh: float | None = 0.1, findings: list[Finding] | None = None) -> str:
    return DiagnosisRecord(
        step=step,
        epoch=0,
        gradient_norms={"ce": ce, "lsh": lsh},
        gradient_at={"ce": "student.conv_head.weight", "lsh": "student.conv_head.weight"},
        teacher=TeacherFacts(accuracy=0.9, confidence=0.8, input_mean=0.0, input_std=1.0),
        findings=findings or [],
    ).model_dump_json()


def with_looks(folder: Path, looks: list[str], findings: list[Finding] | None) -> Path:
    with (folder / "train.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in looks)
    path = folder / "distill.json"
    document = read_document(path, TrainingDocument).model_copy(update={"findings": findings})
    path.write_text(document.model_dump_json(), encoding="utf-8")
    return folder


def blocks_of(folder: Path) -> tuple[list[Note], list[Table], dict[str, Figure]]:
    section = diagnosis.section_from_run(load_run(folder))
    figures = [f for block in section.blocks if isinstance(block, Gallery) for f in block.figures]
    return (
        [block for block in section.blocks if isinstance(block, Note)],
        [block for block in section.blocks if isinstance(block, Table)],
        {figure.id: figure for figure in figures},
    )


def test_a_sound_run_says_so(make_run: Callable[..., Path]) -> None:
    folder = with_looks(make_run(), [look(1, lsh=0.0), look(2), look(50), look(100, ce=0.01)], [])
    notes, tables, figures = blocks_of(folder)
    assert [note.text for note in notes] == ["No findings in 4 diagnosed steps."]
    assert [table.id for table in tables] == ["gradient-norms"]
    rows = figures["gradient-norms-chart"].spec["data"]["values"]
    assert [row["x"] for row in rows] == [1, 2, 50, 100]
    # A logarithmic axis has no place for the 0 of a weight that rises from 0.
    assert [row["v1"] for row in rows] == [None, 0.1, 0.1, 0.1]


def test_findings_are_told_with_their_cures_in_both_forms(make_run: Callable[..., Path]) -> None:
    stop = FINDING.model_copy(update={"kind": "class_order", "severity": "stop", "term": None})
    folder = with_looks(make_run(), [look(1), look(2), look(3)], [FINDING, stop])
    report = build_report(folder)
    plain = re.sub(r"\\([\\`*_\[\]|~#])", r"\1", report.markdown)
    for sentence in (FINDING.seen, FINDING.means, FINDING.cure, "exploding loss term: lsh, at step 3", "stopped"):
        assert sentence in plain
        assert sentence in html.unescape(report.html)


def test_without_a_diagnosis_the_key_is_named(make_run: Callable[..., Path]) -> None:
    notes, tables, _ = blocks_of(make_run())
    assert "diagnosis.enabled" in notes[0].text
    assert tables == []


def test_a_training_that_was_stopped_shows_what_was_found(make_run: Callable[..., Path]) -> None:
    folder = with_looks(make_run(), [look(1), look(2, findings=[FINDING])], None)
    (folder / "distill.json").unlink()
    _, tables, _ = blocks_of(folder)
    assert tables[0].rows[0][1].text == "exploding loss term: lsh, at step 3"


@pytest.mark.parametrize("norms", [(0.0, 0.0), (0.5, None), (1e-30, 1e30)])
def test_unusual_norms_are_drawn_or_left_out(
    norms: tuple[float, float | None], make_run: Callable[..., Path]
) -> None:
    folder = with_looks(make_run(), [look(1, *norms)], [])
    _, _, figures = blocks_of(folder)
    assert ("gradient-norms-chart" in figures) == (norms[0] > 0)


def test_no_monitor_is_drawn_twice(make_run: Callable[..., Path]) -> None:
    run = load_run(make_run())
    assert run.student_history is not None
    monitors = {name.replace("_", " ") for name in run.student_history.steps[0].monitors}
    gallery = training.monitors_from_run(run).blocks[0]
    assert isinstance(gallery, Gallery)
    assert {figure.title for figure in gallery.figures} == monitors - {"hash agreement"}
    assert list(blocks_of(run.folder)[2]) == ["diagnosis-1"]


def test_monitors_of_every_tenth_step_make_a_whole_curve(make_run: Callable[..., Path]) -> None:
    """Of many steps only some are drawn, and those have to be ones with a value."""
    folder = make_run(student_epochs=20)
    path = folder / "train.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if line["kind"] == "step" and line["step"] % 10:
            line["monitors"] = {}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = blocks_of(folder)[2]["diagnosis-1"].spec["data"]["values"]
    assert [row["x"] for row in rows] == list(range(10, 20 * 45 + 1, 10))
    assert all(row["v0"] is not None for row in rows)
