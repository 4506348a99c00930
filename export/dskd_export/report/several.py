"""One page of several runs and devices: the choice between them, and where each number comes from.

What concerns one run alone, its curves and layers, stays in the report of that run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import Commands, Heading, Note, Section
from dskd_export.report.choices import Source, choices
from dskd_export.report.decision import decide_between
from dskd_export.report.first_screen import table_of_runs
from dskd_export.report.next_steps import MOST_STEPS, NextStep, list_next_steps
from dskd_export.report.render import Page
from dskd_export.report.sections import choice
from dskd_export.report.staleness import FileHashes, check_stages
from dskd_export.report.tables import Cell, code, make_table, missing, number


def page_from_sources(sources: Sequence[Source], title: str | None) -> Page:
    """Make the page.

    Args:
        sources: two or more.
        title: None: of the models and devices.
    """
    found = choices(sources)
    stale = [
        f"{check.record.stage} of {source.name}"
        for source in sources
        for check in check_stages(source.run.stages, FileHashes(source.run.folder))
        if check.stale
    ]
    devices = list(dict.fromkeys(one.device for one in found))
    decision = decide_between(sources, found, stale)
    return Page(
        title=title or f"{len(sources)} results side by side",
        subtitle=", ".join(devices),
        decision=decision,
        table=table_of_runs(found, decision.reason, stale=bool(stale)),
        steps=_steps(sources),
        warnings=[f"STALE: their inputs have changed since: {', '.join(stale)}."] if stale else [],
        sections=(
            choice.section_from_choices(found, several=True),
            _models(sources),
            _latency(sources),
            _provenance(sources),
            _reproduce(sources),
        ),
    )


def _steps(sources: Sequence[Source]) -> list[NextStep]:
    """What to try next: one step of each run before the second of any, what several share once."""
    lists = [list_next_steps(source.run) for source in sources]
    sharing: dict[tuple[str, str], list[tuple[str, NextStep]]] = {}
    for index in range(MOST_STEPS):
        for source, steps in zip(sources, lists, strict=True):
            if index < len(steps):
                step = steps[index]
                sharing.setdefault((step.kind, step.fact), []).append((source.name, step))
    steps = []
    for shared in list(sharing.values())[:MOST_STEPS]:
        (name, step), more = shared[0], len(shared) - 1
        who = f"{name} and {more} more" if more else name
        steps.append(replace(step, fact=f"{who}: {step.fact}"))
    return steps


def _models(sources: Sequence[Source]) -> Section:
    """List students and methods with their teachers."""
    rows = []
    for source in sources:
        student, teacher = source.run.student, source.run.teacher_model
        if student is None:
            continue
        top1 = [
            missing("not measured") if one is None else number(fmt.percent_interval(one.accuracy.top1))
            for one in (source.run.teacher_accuracy, source.run.student_accuracy)
        ]
        facts = student.model
        rows.append(
            {
                "from": Cell(source.name),
                "teacher": Cell("none" if teacher is None else teacher.name),
                "student": Cell(facts.name),
                "method": Cell(student.method),
                "teacher top-1": top1[0],
                "student top-1": top1[1],
                "parameters": number(fmt.scaled(facts.parameters)),
                "MACs": missing("not counted") if facts.macs is None else number(fmt.scaled(facts.macs)),
                "size": number(fmt.megabytes(facts.size_mb)),
                "epochs": number(str(student.epochs)),
                "seed": number(str(student.provenance.seed)),
            }
        )
    if not rows:
        text = "None of these folders is a run: what trained the models is unknown."
        return Section("models", "Models and methods", [Note(text, "missing")])
    note = (
        "In brackets 95 % intervals over images of one training. To show that a method is better takes several "
        "seeds: dskd-compress compare."
    )
    table = make_table("models-table", "Students, their methods and their teachers", rows, note)
    return Section("models", "Models and methods", [table])


def _latency(sources: Sequence[Source]) -> Section:
    """List every timed cell, folded: the picture above has the smallest batch alone."""
    rows = []
    for source in sources:
        for row in source.run.benchmark.rows if source.run.benchmark is not None else ():
            latency = row.latency
            if latency is None:
                state = Cell("not measured", "missing", row.unavailable)
            else:
                state = Cell("steady") if latency.stable else Cell("UNSTABLE", "stale", latency.reason)
            rows.append(
                {
                    "from": Cell(source.name),
                    "model": Cell(row.model),
                    "runner": Cell(fmt.runner_of(row)),
                    "batch": number(str(row.batch)),
                    "part": Cell(row.part.replace("_", " ")),
                    "p50 (ms)": number(latency.p50_ms if latency else None),
                    "p99 (ms)": number(latency.p99_ms if latency else None),
                    "images/s": number(row.throughput_images_per_s),
                    "state": state,
                }
            )
    if not rows:
        return Section("latency", "Latency", [Note("Nothing was timed.", "missing")])
    table = make_table("latency-table", "Every timed cell", rows, folded=len(rows) > 12)
    return Section("latency", "Latency", [table])


def _provenance(sources: Sequence[Source]) -> Section:
    """List hashes, commits, seeds and versions of every source."""
    rows = []
    for source in sources:
        run = source.run
        for what, document, bundle in (
            ("training", run.student, None),
            ("validation", run.validation, run.validation and run.validation.bundle_sha256),
            ("benchmark", run.benchmark, run.benchmark and run.benchmark.bundle_sha256),
        ):
            if document is None:
                continue
            about = document.provenance
            rows.append(
                {
                    "from": Cell(source.name),
                    "result": Cell(what),
                    "started (UTC)": Cell(about.started_at),
                    "device": Cell(about.device.gpu or about.device.cpu),
                    "bundle sha256": code(bundle) if bundle else missing("before the bundle"),
                    "recipe sha256": code(about.recipe_sha256),
                    "code": Cell(about.code),
                    "seed": number(str(about.seed)),
                    "versions": Cell(", ".join(f"{name} {version}" for name, version in about.versions.items())),
                }
            )
    table = make_table("provenance-table", "Where every number comes from", rows) if rows else None
    return Section("provenance", "Provenance", [table or Note("No result was recorded.", "missing")])


def _reproduce(sources: Sequence[Source]) -> Section:
    """List the commands that were run, source by source."""
    blocks: list[Heading | Commands | Note] = []
    for index, source in enumerate(sources):
        run = source.run
        documents = [one for one in (run.teacher, run.student, run.validation, run.benchmark) if one is not None]
        made = sorted((one.provenance for one in documents), key=lambda one: one.started_at)
        commands = list(dict.fromkeys(one.command for one in made if one.command))
        blocks.append(Heading(f"reproduce-{index}", source.name))
        blocks.append(Commands(commands) if commands else Note("No command was recorded.", "missing"))
    return Section("reproduce", "How to reproduce", blocks)
