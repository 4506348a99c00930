"""Report on one run folder or several: a self-contained HTML page, the same as Markdown, the times as CSV.

    load -> decision, sections/* (blocks of plain text and chart specs) -> render

It reads nothing but the run folder and needs neither torch nor a network. The same folder gives the
same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dskd_export.files.names import make_printable
from dskd_export.report.choices import Choice, Source, choices
from dskd_export.report.csv_table import csv_table
from dskd_export.report.decision import decide
from dskd_export.report.first_screen import table_of_run
from dskd_export.report.load import Run, load_run
from dskd_export.report.next_steps import list_next_steps
from dskd_export.report.render import Page, html_from_page, markdown_from_page
from dskd_export.report.sections import (
    choice,
    comparison,
    diagnosis,
    latency,
    mistakes,
    numerics,
    precisions,
    profile,
    provenance,
    training,
)
from dskd_export.report.several import page_from_sources
from dskd_export.report.staleness import FileHashes, StageCheck, check_stages

__all__ = ["Report", "build_comparison", "build_report"]


@dataclass(frozen=True)
class Report:
    """A report in its three forms."""

    html: str
    markdown: str
    csv: str


def build_report(run_folder: Path, *, title: str | None = None, photos: bool = True) -> Report:
    """Report on what a run folder holds.

    Args:
        run_folder: the folder that the stages wrote into. A file that is missing leaves its part of
            the report empty, with the command that makes it.
        title: None makes one from the names of the teacher and the student.
        photos: show the photos of mistakes that the validation kept.

    Raises:
        DataError: the folder is missing, holds no result, or a file in it is damaged.
    """
    run = load_run(run_folder)
    source = Source(make_printable(run_folder.resolve().name), run)
    found = choices([source])
    hashes = FileHashes(run_folder)
    stages = check_stages(run.stages, hashes)
    decision = decide(run, [check.record.stage for check in stages if check.stale], found)
    page = Page(
        title=title or _title(run),
        subtitle=_subtitle(run),
        decision=decision,
        table=table_of_run(run, found, decision.reason, stale=decision.verdict == "STALE"),
        steps=list_next_steps(run),
        warnings=_warnings(stages),
        sections=(
            mistakes.section_from_run(run, photos=photos),
            choice.section_from_choices(found, several=False),
            comparison.section_from_run(run),
            training.section_from_run(run),
            diagnosis.section_from_run(run),
            training.monitors_from_run(run),
            comparison.discarded_from_run(run),
            precisions.section_from_run(run),
            numerics.section_from_run(run),
            latency.section_from_run(run),
            *profile.sections_from_run(run),
            precisions.engines_from_run(run),
            provenance.section_from_run(run, stages, hashes),
            provenance.commands_from_run(run, stages),
        ),
    )
    return _report(page, [source], found)


def build_comparison(folders: Sequence[Path], *, title: str | None = None) -> Report:
    """Report on several runs, and results of bundles on devices, side by side.

    Args:
        folders: two or more, each a run folder or a folder of results.
        title: None makes one.

    Raises:
        DataError: a folder is missing, holds no result, or a file in it is damaged.
    """
    names = names_of(folders)
    sources = [Source(name, load_run(folder)) for name, folder in zip(names, folders, strict=True)]
    return _report(page_from_sources(sources, title), sources, choices(sources))


def names_of(folders: Sequence[Path]) -> list[str]:
    """Give each folder the shortest unique name: its last part, or as many parts as it takes."""
    parts = [folder.resolve().parts for folder in folders]
    names = []
    for own in parts:
        for length in range(1, len(own) + 1):
            name = own[-length:]
            if sum(other[-length:] == name for other in parts) == 1:
                break
        names.append(make_printable("/".join(name)))
    return names


def _report(page: Page, sources: Sequence[Source], found: Sequence[Choice]) -> Report:
    return Report(html_from_page(page), markdown_from_page(page), csv_table(sources, found))


def _warnings(stages: Sequence[StageCheck]) -> list[str]:
    """Warn of stale and altered results; the reasons are listed under Provenance."""
    stale = [check.record.stage for check in stages if check.stale]
    altered = [check.record.stage for check in stages if check.altered]
    warnings = []
    if stale:
        warnings.append(
            f"STALE: the inputs of {', '.join(stale)} have changed since. See Provenance for what to run again."
        )
    if altered:
        warnings.append(
            f"ALTERED: output files of {', '.join(altered)} have changed or are missing. See Provenance."
        )
    return warnings


def _title(run: Run) -> str:
    teacher, student = run.teacher_model, run.student_model
    if teacher and student:
        return f"{teacher.name} → {student.name}"
    model = teacher or student
    return model.name if model else make_printable(run.folder.resolve().name)


def _subtitle(run: Run) -> str:
    """Data, method and date of the newest result, as far as they are known."""
    parts = []
    documents = [d for d in (run.teacher, run.student, run.validation, run.benchmark) if d is not None]
    if run.student is not None:
        parts.append(f"method {run.student.method}")
    training_document = run.student or run.teacher
    if training_document is not None:
        data = training_document.data
        parts.append(f"data {data.source}, {len(data.classes)} classes")
    if documents:
        parts.append(max(document.provenance.started_at for document in documents))
    return " · ".join(parts)
