"""Whether the distillation was sound: findings, gradient norm of each loss term, effect of the guidance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dskd_export.documents.training import DiagnosisRecord, Finding, StepRecord
from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import Block, Figure, Gallery, Note, Section, missing_file
from dskd_export.report.charts import step_figure, value_cells
from dskd_export.report.load import Run
from dskd_export.report.series import Array
from dskd_export.report.tables import Cell, Table, make_table

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
        {
            "denoised_spread": "spread, 1 is the teacher's",
            "hash_bit_entropy_denoised": "entropy of a hash bit (bits)",
        },
    ),
)
DRAWN_HERE = frozenset(name for _, _, names in _SHARED for name in names)
"""Monitors that this section draws, and the gallery of all others leaves out."""

_WORDS = {
    "teacher_mode": "teacher in train mode",
    "teacher_not_frozen": "teacher not frozen",
    "teacher_changed": "teacher changed",
    "not_optimized": "parameters missing from the optimizer",
    "teacher_input": "input of the teacher",
    "class_order": "class order",
    "dead_term": "dead loss term",
    "exploding_term": "exploding loss term",
    "collapsed_target": "collapsed features",
}


def section_from_run(run: Run) -> Section:
    """List the findings, then draw the curves that they were judged by."""
    history = run.student_history
    if history is None:
        return Section("diagnosis", TITLE, [missing_file("train.jsonl", "distill", "The diagnosis")])
    if run.student is not None:
        findings = run.student.findings
    else:  # a training that is running, or was stopped
        findings = [f for record in history.diagnoses for f in record.findings] if history.diagnoses else None
    blocks: list[Block] = [_findings(findings, history.diagnoses)]
    figures = [_gradient_figure(history.diagnoses)] if history.diagnoses else []
    figures += [_monitor_figure(index, *shared, history.steps) for index, shared in enumerate(_SHARED)]
    if any(figures):
        blocks.append(Gallery([figure for figure in figures if figure is not None]))
    if history.diagnoses:
        blocks.append(_gradient_table(history.diagnoses))
    # Findings are read; curves without any are looked up.
    return Section("diagnosis", TITLE, blocks, folded=not findings)


def _findings(findings: Sequence[Finding] | None, records: Sequence[DiagnosisRecord]) -> Block:
    if findings is None:
        return Note("No diagnosis: diagnosis.enabled was false, or an older version trained this run.")
    if not findings:
        return Note(f"No findings in {fmt.count(len(records))} diagnosed steps.")
    rows = []
    for finding in findings:
        what = _WORDS[finding.kind] + (f": {finding.term}" if finding.term else "")
        badge = Cell("stopped", "fail") if finding.severity == "stop" else Cell("warning", "stale")
        for label, text in (
            (badge, f"{what}, at step {fmt.count(finding.step)}"),
            (Cell("observed"), finding.seen),
            (Cell("meaning"), finding.means),
            (Cell("fix"), finding.cure),
        ):
            rows.append({"finding": label, "details": Cell(text)})
    return make_table("findings", "Findings", rows)


def _gradient_figure(records: Sequence[DiagnosisRecord]) -> Figure | None:
    norms = {name: values for name, values in _norms(records).items() if (values > 0).any()}
    if not norms:
        return None
    return step_figure(
        "gradient-norms-chart",
        "Gradient norm of each loss term",
        [record.step for record in records],
        # A logarithmic axis has no place for 0, which a term has while its weight is 0.
        {name.replace("_", " "): np.where(values > 0, values, np.nan) for name, values in norms.items()},
        "gradient norm (no unit, log scale)",
        log=True,
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
    return step_figure(f"diagnosis-{index}", title, [step.step for step in steps], series, axis)


def _gradient_table(records: Sequence[DiagnosisRecord]) -> Table:
    places = {name: place for record in records for name, place in record.gradient_at.items()}
    rows = [
        {
            "term": Cell(name.replace("_", " ")),
            "measured at": Cell(places[name], "code") if name in places else Cell("no gradient", "missing"),
            **value_cells(values),
        }
        for name, values in _norms(records).items()
    ]
    note = "A term whose weight rises from 0 begins with 0."
    return make_table("gradient-norms", "Gradient norms of the loss terms", rows, note, folded=True)


def _norms(records: Sequence[DiagnosisRecord]) -> dict[str, Array]:
    names = list(dict.fromkeys(name for record in records for name in record.gradient_norms))
    # None: the term has no gradient, which numpy reads as NaN.
    return {name: np.array([r.gradient_norms.get(name) for r in records], dtype=float) for name in names}
