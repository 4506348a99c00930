"""Teacher and student side by side, and what the training discarded."""

from __future__ import annotations

from dskd_export.documents.base import Interval
from dskd_export.documents.benchmark import BenchmarkRow
from dskd_export.report import chart_parts as parts
from dskd_export.report import formatting as fmt
from dskd_export.report import model_charts
from dskd_export.report.blocks import Block, Figure, Gallery, Key, Note, Section, missing_file
from dskd_export.report.decision import latency_pair
from dskd_export.report.load import Run
from dskd_export.report.series import difference
from dskd_export.report.tables import Cell, make_table, missing, number

_NO_TEACHER = "no teacher in this run"
_NO_STUDENT = "no distill.json"


def section_from_run(run: Run) -> Section:
    """Compare accuracy, size, cost and speed of both models."""
    blocks: list[Block] = []
    if run.student is None:
        blocks.append(missing_file("distill.json", "distill", "The student"))
    note = "Accuracies with 95 % Wilson score intervals."
    teacher, student = run.teacher_accuracy, run.student_accuracy
    if teacher is not None and student is not None:
        note += f" Read from: {teacher.source} (teacher); {student.source} (student)."
        note += " The intervals of differences and ratios treat the two models as independent. "
        note += "Both saw the same images, so the true intervals are narrower."
    rows = [*_accuracy_rows(run), *_cost_rows(run)]
    blocks.append(make_table("comparison-table", "Accuracy, size and cost", rows, note))
    blocks.append(_speed(run))
    shares = _shares(run)
    if len(shares) > 1:
        words = ", ".join(f"{name} {fmt.percent(value)}" for name, value in shares.items())
        figure = Figure(
            "relative-chart",
            "Student relative to the teacher",
            f"Bar chart of the student as a share of the teacher: {words}.",
            model_charts.relative_chart(shares),
            caption="Dashed line: the teacher, 100 %.",
        )
        blocks.append(Gallery([figure]))
    return Section("comparison", "Teacher against student", blocks)


def discarded_from_run(run: Run) -> Section:
    """List the modules that only the training needs."""
    title = "Training-only modules"
    if run.student is None:
        return Section("discarded", title, [missing_file("distill.json", "distill", "Training-only modules")])
    student, teacher = run.student.model, run.teacher_model
    modules = run.student.discarded
    if not modules:
        return Section("discarded", title, [Note(f"None: method {run.student.method} trains the student alone.")])
    bars = [("student", student.parameters, True), *((name, count, False) for name, count in modules.items())]
    if teacher is not None:
        bars.append(("teacher", teacher.parameters, False))
    words = ", ".join(f"{name} {fmt.scaled(count)}" for name, count, _ in bars)
    figure = Figure(
        "discarded-chart",
        "Parameters in training and in the exported model",
        f"Bar chart of parameters: {words}. Only the student ships.",
        model_charts.discarded_chart(bars),
        legend=[Key("ships", parts.STUDENT), Key("training only", parts.MUTED)],
    )
    rows = [
        {
            "module": Cell(name),
            "parameters": number(fmt.count(count)),
            "relative to the student": number(fmt.percent(count / student.parameters)),
        }
        for name, count in [*modules.items(), ("total", sum(modules.values()))]
    ]
    note = "None of them is in the exported model: it has exactly the weights of the plain architecture."
    return Section(
        "discarded",
        title,
        [make_table("discarded-table", "Parameters by module", rows, note), Gallery([figure])],
        folded=True,
    )


def _row(measure: str, teacher: Cell, student: Cell, change: Cell) -> dict[str, Cell]:
    return {"measure": Cell(measure), "teacher": teacher, "student": student, "student against teacher": change}


def _accuracy_rows(run: Run) -> list[dict[str, Cell]]:
    teacher, student = run.teacher_accuracy, run.student_accuracy
    before, after = teacher.accuracy if teacher else None, student.accuracy if student else None

    def row(
        measure: str, first: Interval | None, second: Interval | None, whys: tuple[str, str]
    ) -> dict[str, Cell]:
        cells = [
            missing(why) if one is None else number(fmt.percent_interval(one))
            for one, why in ((first, whys[0]), (second, whys[1]))
        ]
        return _row(measure, cells[0], cells[1], _change(first, second))

    top1 = (before.top1 if before else None, after.top1 if after else None)
    top5 = (before.top5 if before else None, after.top5 if after else None)
    rows = [row("top-1 accuracy", *top1, (_NO_TEACHER, _NO_STUDENT))]
    return rows + ([row("top-5 accuracy", *top5, ("not measured", "not measured"))] if any(top5) else [])


def _change(before: Interval | None, after: Interval | None) -> Cell:
    if before is None or after is None:
        return missing("needs both")
    change = difference(after, before)
    low, high = fmt.points(change.low), fmt.points(change.high)
    return number(f"{fmt.points(change.value)} points ({low} to {high})")


def _cost_rows(run: Run) -> list[dict[str, Cell]]:
    models = ((run.teacher_model, _NO_TEACHER), (run.student_model, _NO_STUDENT))
    rows = []
    for label, field, text, words in (
        ("architecture", "name", str, None),
        ("parameters", "parameters", fmt.count, ("fewer", "more", "as many")),
        ("MACs per image", "macs", fmt.count, ("fewer", "more", "as many")),
        ("weights on disk", "size_mb", fmt.megabytes, ("smaller", "larger", "as large")),
        ("input: channels × height × width", "input_size", lambda size: " × ".join(map(str, size)), None),
    ):
        values = [getattr(model, field) if model else None for model, _ in models]
        cells = [
            missing("not counted" if model else why) if value is None else number(text(value))
            for value, (model, why) in zip(values, models, strict=True)
        ]
        change = Cell("")
        if words is not None:
            before, after = values
            change = number(fmt.times(before, after, *words)) if before and after else missing("needs both")
        rows.append(_row(label, cells[0], cells[1], change))
    return rows


def _speed(run: Run) -> Block:
    """p50, p99 and throughput of each engine cell, the two models in one row."""
    if run.benchmark is None:
        return missing_file("benchmark.json", "benchmark", "Latency and throughput")
    pairs: dict[tuple[object, ...], dict[str, BenchmarkRow]] = {}
    for row in run.benchmark.rows:
        if row.part == "engine":
            key = (row.runner, row.provider, row.precision, row.threads, row.batch)
            pairs.setdefault(key, {})[row.model] = row
    rows = []
    for pair in pairs.values():
        both = (pair.get("teacher"), pair.get("student"))
        before, after = (row.latency if row else None for row in both)
        some = next(iter(pair.values()))
        rate = [row.throughput_images_per_s if row else None for row in both]
        speedup = missing(_why(*both))
        if before and after:
            speedup = number(fmt.times(before.p50_ms, after.p50_ms, "faster", "slower", "as fast"))
        rows.append(
            {
                "runner": Cell(fmt.runner_of(some)),
                "batch": number(str(some.batch)),
                "teacher p50 (ms)": number(before.p50_ms if before else None),
                "student p50 (ms)": number(after.p50_ms if after else None),
                "teacher p99 (ms)": number(before.p99_ms if before else None),
                "student p99 (ms)": number(after.p99_ms if after else None),
                "teacher (images/s)": number(rate[0]),
                "student (images/s)": number(rate[1]),
                "student, by p50": speedup,
            }
        )
    if not rows:
        return Note("The engine was not timed.", "missing")
    note = "Engine only: arrays in, logits out. –: not measured. All percentiles: see Latency."
    return make_table("speed-table", "Latency and throughput", rows, note)


def _why(teacher: BenchmarkRow | None, student: BenchmarkRow | None) -> str:
    """Say why a row of the table has no ratio."""
    reasons = []
    for name, row in (("teacher", teacher), ("student", student)):
        if row is None:
            reasons.append(f"{name} not in the benchmark")
        elif row.latency is None:
            reasons.append(f"{name} not measured: {row.unavailable or 'no reason was recorded'}")
    return "; ".join(reasons)


def _shares(run: Run) -> dict[str, float]:
    """Quantity -> student / teacher, for those that are known."""
    shares: dict[str, float] = {}
    teacher_top1, student_top1 = run.teacher_accuracy, run.student_accuracy
    if teacher_top1 and student_top1 and teacher_top1.accuracy.top1.value > 0:
        shares["top-1 accuracy"] = student_top1.accuracy.top1.value / teacher_top1.accuracy.top1.value
    teacher, student = run.teacher_model, run.student_model
    if teacher and student:
        for label, field in (("parameters", "parameters"), ("MACs", "macs"), ("size on disk", "size_mb")):
            before, after = getattr(teacher, field), getattr(student, field)
            if before and after:
                shares[label] = after / before
    pair = latency_pair(run.benchmark) if run.benchmark else None
    if pair and pair[0].latency and pair[1].latency:
        shares[f"latency p50, batch {pair[1].batch}"] = pair[1].latency.p50_ms / pair[0].latency.p50_ms
    return shares
