"""Teacher and student side by side, and what was thrown away on the way."""

from __future__ import annotations

from dskd_export.documents.base import Interval
from dskd_export.documents.benchmark import BenchmarkRow
from dskd_export.report import bar_charts
from dskd_export.report import chart_parts as looks
from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import (
    Block,
    Cell,
    Figure,
    Gallery,
    Key,
    Note,
    Section,
    Table,
    missing,
    not_there,
    number,
)
from dskd_export.report.decision import (
    latency_pair,
    student_accuracy,
    student_facts,
    teacher_accuracy,
    teacher_facts,
)
from dskd_export.report.intervals import difference
from dskd_export.report.load import Run

NO_TEACHER = "no teacher in this run"
NO_STUDENT = "distill.json is not there"


def comparison(run: Run) -> Section:
    """Accuracy, size, cost and speed of both models."""
    blocks: list[Block] = []
    if run.student is None:
        blocks.append(not_there("distill.json", "distill", "The student"))
    rows = [*_accuracy_rows(run), *_cost_rows(run)]
    columns = ("measure", "teacher", "student", "student against teacher")
    note = "Accuracies are followed by their 95 % Wilson score interval. "
    teacher, student = teacher_accuracy(run), student_accuracy(run)
    if teacher is not None and student is not None:
        note += f"Read from: {teacher.source} (teacher); {student.source} (student). "
        note += (
            "The intervals of differences and ratios treat the two models as independent; they saw the same "
            "images, so the true intervals are narrower."
        )
    blocks.append(Table("comparison-table", "Accuracy, size and cost", columns, rows, note=note))
    blocks += _speed(run)
    shares = _shares(run)
    if len(shares) > 1:
        words = ", ".join(f"{name} {fmt.percent(value)}" for name, value in shares.items())
        blocks.append(
            Gallery(
                [
                    Figure(
                        "relative-chart",
                        "What is left of the teacher",
                        f"Bar chart of the student as a share of the teacher: {words}.",
                        bar_charts.relative_chart(shares),
                        caption="The dashed line at 100 % is the teacher.",
                    )
                ]
            )
        )
    return Section("comparison", "Teacher against student", blocks)


def discarded(run: Run) -> Section:
    """Modules that helped the training and do not ship."""
    title = "What was discarded"
    if run.student is None:
        return Section("discarded", title, [not_there("distill.json", "distill", "What the training used")])
    student, teacher = run.student.model, teacher_facts(run)
    if not run.student.discarded:
        text = f"Nothing: the method {run.student.method} trains no module beside the student."
        return Section("discarded", title, [Note(text)])
    total = sum(run.student.discarded.values())
    rows = [
        [Cell(name), number(fmt.count(count)), number(fmt.percent(count / student.parameters))]
        for name, count in run.student.discarded.items()
    ]
    rows.append([Cell("all together"), number(fmt.count(total)), number(fmt.percent(total / student.parameters))])
    parts = [("student", student.parameters, True)]
    parts += [(name, count, False) for name, count in run.student.discarded.items()]
    if teacher is not None:
        parts.append(("teacher", teacher.parameters, False))
    words = ", ".join(f"{name} {fmt.scaled(count)}" for name, count, _ in parts)
    figure = Figure(
        "discarded-chart",
        "Parameters in the training, and what ships",
        f"Bar chart of parameters: {words}. Only the student ships.",
        bar_charts.discarded_chart(parts),
        legend=[Key("ships", looks.STUDENT), Key("training only", looks.MUTED)],
    )
    table = Table(
        "discarded-table",
        "Training-only modules",
        ("module", "parameters", "of the student's parameters"),
        rows,
        note="None of them is in the exported model: it has exactly the weights of the plain architecture.",
    )
    return Section("discarded", title, [table, Gallery([figure])])


def _accuracy_rows(run: Run) -> list[list[Cell]]:
    teacher, student = teacher_accuracy(run), student_accuracy(run)
    before = teacher.accuracy if teacher else None
    after = student.accuracy if student else None
    rows = [
        [
            Cell("top-1 accuracy"),
            number(fmt.percent_interval(before.top1)) if before else missing(NO_TEACHER),
            number(fmt.percent_interval(after.top1)) if after else missing(NO_STUDENT),
            _change(before.top1 if before else None, after.top1 if after else None),
        ]
    ]
    if (before and before.top5) or (after and after.top5):
        rows.append(
            [
                Cell("top-5 accuracy"),
                number(fmt.percent_interval(before.top5)) if before and before.top5 else missing("not measured"),
                number(fmt.percent_interval(after.top5)) if after and after.top5 else missing("not measured"),
                _change(before.top5 if before else None, after.top5 if after else None),
            ]
        )
    return rows


def _change(before: Interval | None, after: Interval | None) -> Cell:
    if before is None or after is None:
        return missing("needs both")
    change = difference(after, before)
    low, high = fmt.points(change.low), fmt.points(change.high)
    return number(f"{fmt.points(change.value)} points ({low} to {high})")


def _cost_rows(run: Run) -> list[list[Cell]]:
    teacher, student = teacher_facts(run), student_facts(run)

    def cell(value: float | None, text: str) -> Cell:
        return number(text) if value is not None else missing("not counted")

    def change(before: float | None, after: float | None, less: str, more: str, same: str) -> Cell:
        return number(fmt.times(before, after, less, more, same)) if before and after else missing("needs both")

    rows = []
    for label, field, text, words in (
        ("architecture", "name", str, None),
        ("parameters", "parameters", fmt.count, ("fewer", "more", "as many")),
        ("MACs for one image", "macs", fmt.count, ("fewer", "more", "as many")),
        ("weights on disk", "size_mb", fmt.megabytes, ("smaller", "larger", "as large")),
    ):
        before = getattr(teacher, field) if teacher else None
        after = getattr(student, field) if student else None
        left = cell(before, text(before) if before is not None else "") if teacher else missing(NO_TEACHER)
        right = cell(after, text(after) if after is not None else "") if student else missing(NO_STUDENT)
        rows.append([Cell(label), left, right, change(before, after, *words) if words else Cell("")])
    sizes = [" × ".join(map(str, model.input_size)) if model else None for model in (teacher, student)]
    rows.append(
        [
            Cell("input: channels × height × width"),
            number(sizes[0]) if sizes[0] else missing(NO_TEACHER),
            number(sizes[1]) if sizes[1] else missing(NO_STUDENT),
            Cell(""),
        ]
    )
    return rows


def _speed(run: Run) -> list[Block]:
    """p50, p99 and throughput of each engine cell, the two models in one row."""
    if run.benchmark is None:
        return [not_there("benchmark.json", "benchmark", "Latency and throughput")]
    cells: dict[tuple[object, ...], dict[str, BenchmarkRow]] = {}
    for row in run.benchmark.rows:
        if row.part == "engine":
            key = (row.runner, row.provider, row.precision, row.threads, row.batch)
            cells.setdefault(key, {})[row.model] = row
    rows = []
    for pair in cells.values():
        teacher, student = pair.get("teacher"), pair.get("student")
        some = student or teacher
        assert some is not None  # a cell exists because one of them is in it
        before, after = (row.latency if row else None for row in (teacher, student))
        images = [row.throughput_images_per_s if row else None for row in (teacher, student)]
        rows.append(
            [
                Cell(fmt.runner_name(some.runner, some.provider, some.precision, some.threads)),
                number(str(some.batch)),
                _value(before.p50_ms if before else None),
                _value(after.p50_ms if after else None),
                _value(before.p99_ms if before else None),
                _value(after.p99_ms if after else None),
                _value(images[0]),
                _value(images[1]),
                _ratio(before.p50_ms, after.p50_ms) if before and after else missing(_why(teacher, student)),
            ]
        )
    columns = (
        "runner",
        "batch",
        "p50 teacher (ms)",
        "p50 student (ms)",
        "p99 teacher (ms)",
        "p99 student (ms)",
        "teacher (images/s)",
        "student (images/s)",
        "student, by p50",
    )
    note = "Engine only: arrays in, logits out. –: not measured. All percentiles: under Latency."
    return [Table("speed-table", "Latency and throughput", columns, rows, note=note)]


def _value(value: float | None) -> Cell:
    return number("–" if value is None else fmt.significant(value))


def _ratio(before: float, after: float) -> Cell:
    return number(fmt.times(before, after, "faster", "slower", "as fast"))


def _why(teacher: BenchmarkRow | None, student: BenchmarkRow | None) -> str:
    """Why a row of the table has no ratio."""
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
    teacher_top1, student_top1 = teacher_accuracy(run), student_accuracy(run)
    if teacher_top1 and student_top1 and teacher_top1.accuracy.top1.value > 0:
        shares["top-1 accuracy"] = student_top1.accuracy.top1.value / teacher_top1.accuracy.top1.value
    teacher, student = teacher_facts(run), student_facts(run)
    if teacher and student:
        for label, field in (("parameters", "parameters"), ("MACs", "macs"), ("size on disk", "size_mb")):
            before, after = getattr(teacher, field), getattr(student, field)
            if before and after:
                shares[label] = after / before
    pair = latency_pair(run.benchmark) if run.benchmark else None
    if pair:
        before_latency, after_latency = pair[0].latency, pair[1].latency
        if before_latency and after_latency:
            shares[f"latency p50, batch {pair[1].batch}"] = after_latency.p50_ms / before_latency.p50_ms
    return shares
