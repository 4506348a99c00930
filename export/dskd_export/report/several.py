"""One page of several runs and devices: the choice between them, and where each number comes from.

What concerns one run alone, its curves and layers, stays in the report of that run.
"""

from __future__ import annotations

from collections.abc import Sequence

from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import Cell, Commands, Heading, Note, Section, Table, code, missing, number
from dskd_export.report.choices import Source, choices
from dskd_export.report.decision import decide_between, student_accuracy, teacher_accuracy, teacher_facts
from dskd_export.report.render import Page
from dskd_export.report.sections.choice import choice
from dskd_export.report.staleness import FileHashes, check_stages


def page_of(sources: Sequence[Source], title: str | None) -> Page:
    """The page.

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
    return Page(
        title=title or f"{len(sources)} results side by side",
        subtitle=", ".join(devices),
        decision=decide_between(sources, found, stale),
        warnings=[f"STALE: made from files that have changed since: {', '.join(stale)}."] if stale else [],
        sections=(
            choice(found, several=True),
            _models(sources),
            _latency(sources),
            _provenance(sources),
            _reproduce(sources),
        ),
    )


def _models(sources: Sequence[Source]) -> Section:
    """Students and methods side by side, with their teachers."""
    columns = (
        "from",
        "teacher",
        "student",
        "method",
        "top-1 teacher",
        "top-1 student",
        "parameters",
        "MACs",
        "size",
        "epochs",
        "seed",
    )
    rows = [_model(source) for source in sources if source.run.student is not None]
    if not rows:
        text = "None of these folders is a run: what trained the models is not known here."
        return Section("models", "Models and methods", [Note(text, "missing")])
    note = (
        "In brackets 95 % intervals over images of one training. To say that a method is better takes several "
        "seeds: dskd-compress compare."
    )
    table = Table("models-table", "Students, their methods and their teachers", columns, rows, note=note)
    return Section("models", "Models and methods", [table])


def _model(source: Source) -> list[Cell]:
    student = source.run.student
    assert student is not None  # the caller selects them
    teacher = teacher_facts(source.run)
    accuracies = [
        missing("not measured") if one is None else number(fmt.percent_interval(one.accuracy.top1))
        for one in (teacher_accuracy(source.run), student_accuracy(source.run))
    ]
    facts = student.model
    return [
        Cell(source.name),
        Cell("none" if teacher is None else teacher.name),
        Cell(facts.name),
        Cell(student.method),
        *accuracies,
        number(fmt.scaled(facts.parameters)),
        missing("not counted") if facts.macs is None else number(fmt.scaled(facts.macs)),
        number(fmt.megabytes(facts.size_mb)),
        number(str(student.epochs)),
        number(str(student.provenance.seed)),
    ]


def _latency(sources: Sequence[Source]) -> Section:
    """Every cell that was timed, folded: the picture above has the smallest batch alone."""
    columns = ("from", "model", "runner", "batch", "part", "p50 (ms)", "p99 (ms)", "images/s", "remark")
    rows = []
    for source in sources:
        for row in source.run.benchmark.rows if source.run.benchmark is not None else ():
            latency = row.latency
            times = [number("–")] * 3
            remark = missing(row.unavailable or "not measured")
            if latency is not None:
                rate = row.throughput_images_per_s
                times = [number(fmt.significant(value)) for value in (latency.p50_ms, latency.p99_ms)]
                times.append(number("–" if rate is None else fmt.significant(rate)))
                remark = Cell("steady") if latency.stable else Cell(f"UNSTABLE: {latency.reason}", "stale")
            runner = fmt.runner_of(row)
            head = [Cell(source.name), Cell(row.model), Cell(runner), number(str(row.batch))]
            rows.append([*head, Cell(row.part.replace("_", " ")), *times, remark])
    if not rows:
        return Section("latency", "Latency", [Note("Nothing was timed.", "missing")])
    table = Table("latency-table", "All that was timed", columns, rows, folded=len(rows) > 12)
    return Section("latency", "Latency", [table])


def _provenance(sources: Sequence[Source]) -> Section:
    """Hashes, commits, seeds and versions of every source."""
    columns = (
        "from",
        "result",
        "made at (UTC)",
        "device",
        "bundle sha256",
        "recipe sha256",
        "code",
        "seed",
        "versions",
    )
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
                [
                    Cell(source.name),
                    Cell(what),
                    Cell(about.started_at),
                    Cell(about.device.gpu or about.device.cpu),
                    code(bundle) if bundle else missing("before there was one"),
                    code(about.recipe_sha256),
                    Cell(about.code),
                    number(str(about.seed)),
                    Cell(", ".join(f"{name} {version}" for name, version in about.versions.items())),
                ]
            )
    table = Table("provenance-table", "Where every number comes from", columns, rows)
    return Section("provenance", "Provenance", [table])


def _reproduce(sources: Sequence[Source]) -> Section:
    """The commands that were really run, source by source."""
    blocks: list[Heading | Commands | Note] = []
    for index, source in enumerate(sources):
        run = source.run
        documents = [one for one in (run.teacher, run.student, run.validation, run.benchmark) if one is not None]
        made = sorted((one.provenance for one in documents), key=lambda one: one.started_at)
        commands = list(dict.fromkeys(one.command for one in made if one.command))
        blocks.append(Heading(f"reproduce-{index}", source.name))
        blocks.append(Commands(commands) if commands else Note("No command was recorded.", "missing"))
    return Section("reproduce", "How to reproduce", blocks)
