"""Whether the distillation was sound: findings, how hard each loss term pulls, what the guidance does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dskd_export.documents.training import DiagnosisRecord, Finding, StepRecord
from dskd_export.report import chart_parts as looks
from dskd_export.report import charts
from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import Block, Cell, Figure, Gallery, Note, Section, Table, not_there, number
from dskd_export.report.load import Run
from dskd_export.report.series import Array

TITLE = "Diagnosis"

# Monitors of one meaning share a chart: title, axis, monitor -> its name there.
_SHARED: tuple[tuple[str, str, dict[str, str]], ...] = (
    (
        "Guidance effect",
        "teacher-head log-likelihood (nats)",
        {"head_likelihood_projected": "original", "head_likelihood_denoised": "denoised"},
    ),
    (
        "Hash-bit agreement with the teacher",
        "share of equal bits (0.5 is chance)",
        {"hash_agreement": "original", "hash_agreement_denoised": "denoised"},
    ),
    (
        "Variety of the denoised features",
        "0: all images alike (no unit)",
        {"denoised_spread": "spread, 1 is the teacher's", "hash_bit_entropy_denoised": "bits a hash bit holds"},
    ),
)
DRAWN_HERE = frozenset(name for _, _, names in _SHARED for name in names)
"""Monitors that this section draws, and the gallery of all others leaves out."""

_WORDS = {
    "teacher_mode": "teacher in train mode",
    "teacher_not_frozen": "teacher not frozen",
    "teacher_changed": "teacher changed",
    "not_optimized": "head not in the optimizer",
    "teacher_input": "input of the teacher",
    "class_order": "class order",
    "dead_term": "dead loss term",
    "exploding_term": "exploding loss term",
    "collapsed_target": "collapsed features",
}


def diagnosis(run: Run) -> Section:
    """Findings first, then the curves that they were judged by."""
    history = run.student_history
    if history is None:
        return Section("diagnosis", TITLE, [not_there("train.jsonl", "distill", "The diagnosis")])
    if run.student is not None:
        findings = run.student.findings
    else:  # a training that is under way, or was stopped
        findings = [f for record in history.diagnoses for f in record.findings] if history.diagnoses else None
    blocks: list[Block] = [_findings(findings, history.diagnoses)]
    figures = [_gradient_figure(history.diagnoses)] if history.diagnoses else []
    figures += [
        figure
        for index, (title, axis, names) in enumerate(_SHARED)
        if (figure := _monitor_figure(index, title, axis, names, history.steps)) is not None
    ]
    if figures:
        blocks.append(Gallery([figure for figure in figures if figure is not None]))
    if history.diagnoses:
        blocks.append(_gradient_table(history.diagnoses))
    return Section("diagnosis", TITLE, blocks)


def _findings(findings: Sequence[Finding] | None, records: Sequence[DiagnosisRecord]) -> Block:
    if findings is None:
        return Note(
            "Nobody looked for faults: diagnosis.enabled was false, or the run is from before it was there."
        )
    if not findings:
        return Note(f"No findings: {fmt.count(len(records))} close looks, none showed a fault.")
    rows = []
    for finding in findings:
        what = _WORDS[finding.kind] + (f": {finding.term}" if finding.term else "")
        stopped = finding.severity == "stop"
        badge = Cell("stopped", "fail") if stopped else Cell("warning", "stale")
        rows += [
            [badge, Cell(f"{what}, at step {fmt.count(finding.step)}")],
            [Cell("what was seen"), Cell(finding.seen)],
            [Cell("what it means"), Cell(finding.means)],
            [Cell("what to change"), Cell(finding.cure)],
        ]
    return Table("findings", "Findings", ("finding", "in words"), rows)


def _gradient_figure(records: Sequence[DiagnosisRecord]) -> Figure | None:
    norms = {name: values for name, values in _norms(records).items() if (values > 0).any()}
    if not norms:
        return None
    # A logarithmic axis has no place for 0, which a term has while its weight is 0.
    drawn = {name: np.where(values > 0, values, np.nan) for name, values in norms.items()}
    keys = looks.keys_for([name.replace("_", " ") for name in drawn])
    steps = np.array([record.step for record in records], dtype=float)
    last = ", ".join(f"{name} {fmt.significant(_last(values))}" for name, values in drawn.items())
    return Figure(
        "gradient-norms-chart",
        "Gradient norm of each loss term",
        f"Line chart of the norm of each term's own gradient over the steps. Last: {last}.",
        charts.step_chart(steps, drawn, "gradient norm (no unit, log scale)", keys, log=True),
        legend=keys,
        caption="As weighted in the loss, at the last weight that all terms of the student share; "
        "a term of a training-only head at that head's last weight.",
    )


def _monitor_figure(
    index: int, title: str, axis: str, names: dict[str, str], steps: Sequence[StepRecord]
) -> Figure | None:
    steps = [step for step in steps if any(name in step.monitors for name in names)]  # costly ones are rare
    series = {
        label: np.array([step.monitors.get(name, np.nan) for step in steps], dtype=float)
        for name, label in names.items()
    }
    series = {label: values for label, values in series.items() if np.isfinite(values).any()}
    if not series:
        return None
    keys = looks.keys_for(list(series))
    x = np.array([step.step for step in steps], dtype=float)
    words = "; ".join(
        f"{label}: first {fmt.significant(_first(values))}, last {fmt.significant(_last(values))}"
        for label, values in series.items()
    )
    return Figure(
        f"diagnosis-{index}",
        title,
        f"Line chart over the steps. {words}.",
        charts.step_chart(x, series, axis, keys, log=False),
        legend=keys,
    )


def _gradient_table(records: Sequence[DiagnosisRecord]) -> Table:
    places = {name: place for record in records for name, place in record.gradient_at.items()}
    rows = [
        [
            Cell(name.replace("_", " ")),
            Cell(places.get(name, ""), "code") if name in places else Cell("no gradient", "missing"),
            *(number(fmt.significant(float(value))) for value in _figures(values)),
        ]
        for name, values in _norms(records).items()
    ]
    columns = ("term", "measured at", "first", "lowest", "highest", "last")
    note = "A term whose weight rises from 0 begins with 0."
    return Table("gradient-norms", "Gradient norms of the loss terms", columns, rows, note=note, folded=True)


def _norms(records: Sequence[DiagnosisRecord]) -> dict[str, Array]:
    names = list(dict.fromkeys(name for record in records for name in record.gradient_norms))
    return {
        name: np.array(
            [np.nan if (norm := r.gradient_norms.get(name)) is None else norm for r in records], dtype=float
        )
        for name in names
    }


def _figures(values: Array) -> list[float]:
    known = values[np.isfinite(values)]
    return [known[0], known.min(), known.max(), known[-1]] if len(known) else [np.nan] * 4


def _first(values: Array) -> float:
    return float(values[np.isfinite(values)][0])


def _last(values: Array) -> float:
    return float(values[np.isfinite(values)][-1])
