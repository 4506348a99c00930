"""Make the table of the first screen: a row for each precision, or for each run on each device. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dskd_export.documents.base import Accuracy, Interval
from dskd_export.report import formatting as fmt
from dskd_export.report.choices import Choice, best_of, teacher_of
from dskd_export.report.load import Run
from dskd_export.report.tables import Cell, Table, make_table, missing, number, verdict_cell

_MOST = 9  # rows; the rest is below under "What can be shipped"
_AGAINST = "against teacher (points)"
_RANK = ("PASS", "NOT SHOWN", "NOT JUDGED", "FAIL")


def table_of_run(run: Run, found: Sequence[Choice], note: str, *, stale: bool = False) -> Table:
    """Make one row for the teacher and one for each precision on its fastest runner.

    Args:
        run: for the teacher's accuracy.
        found: the run's models, as `choices` gives them.
        note: below the table.
        stale: the files have changed since the verdicts.
    """
    best = next(iter(best_of(found).values()), None)
    students = sorted(_fastest(found), key=lambda one: one is not best)
    devices = list(dict.fromkeys(one.device for one in students))
    of_teacher = _teacher_accuracy(run)
    rows = []
    if of_teacher is not None:
        teacher = teacher_of(found, devices[0]) if devices else None
        name = "" if run.teacher_model is None else f" {run.teacher_model.name}"
        rows.append(
            {
                "model": Cell(f"teacher{name}"),
                "verdict": Cell("reference"),
                "device": Cell("–" if teacher is None else teacher.device),
                "top-1": number(fmt.percent_interval(of_teacher.top1)),
                _AGAINST: number(None),
                **_costs(teacher),
                "size (MB)": number(None if run.teacher_model is None else run.teacher_model.size_mb),
            }
        )
    for one in students:
        rows.append(
            {
                "model": Cell(
                    one.row.precision if one.row.latency is None else f"{one.row.precision}, {_runner(one)}"
                ),
                "verdict": _verdict(one, one is best, stale),
                "device": Cell(one.device),
                "top-1": missing("not validated") if one.top1 is None else number(fmt.percent_interval(one.top1)),
                _AGAINST: _difference(one.top1, of_teacher),
                **_costs(one),
            }
        )
    if not students and run.student_accuracy is not None:
        top1 = run.student_accuracy.accuracy.top1
        rows.append(
            {
                "model": Cell(f"student {'' if run.student_model is None else run.student_model.name}".strip()),
                "verdict": Cell("not judged", "missing"),
                "device": Cell("–"),
                "top-1": number(fmt.percent_interval(top1)),
                _AGAINST: _difference(top1, of_teacher),
                **_costs(None),
            }
        )
    where = f" on {devices[0]}, batch {students[0].row.batch}" if len(devices) == 1 else ""
    if len(devices) < 2:
        rows = [{head: cell for head, cell in row.items() if head != "device"} for row in rows]
    return make_table("decision-table", f"The student's models{where}", _drop_empty(rows), note)


def table_of_runs(found: Sequence[Choice], note: str, *, stale: bool = False) -> Table:
    """Make one row for each run on each device: its best precision there, the one to ship first.

    Args:
        found: the models of all runs.
        note: below the table.
        stale: files have changed since the verdicts.
    """
    best, names = best_of(found), name_runs(found)
    rows = []
    for device in best:
        here = [one for one in _fastest(found) if one.device == device]
        runs = {one.source: [other for other in here if other.source == one.source] for one in here}
        chosen = [min(models, key=lambda one: (one is not best[device], *_order(one))) for models in runs.values()]
        for one in sorted(chosen, key=lambda one: (one is not best[device], *_order(one))):
            rows.append(
                {
                    "device": Cell(device),
                    "verdict": _verdict(one, one is best[device], stale),
                    "run": Cell(names[one.source]),
                    "precision": Cell(one.row.precision),
                    "top-1": missing("not validated")
                    if one.top1 is None
                    else number(fmt.percent_interval(one.top1)),
                    **_costs(one),
                }
            )
    more = len(rows) - _MOST
    if more > 0:
        note = f"{note} {more} more rows are under What can be shipped.".strip()
    return make_table(
        "decision-table", "The best precision of each run on each device", _drop_empty(rows[:_MOST]), note
    )


def name_runs(found: Sequence[Choice]) -> dict[str, str]:
    """Source -> the name of its run: without the folder of the device, which the device's own name replaces."""
    parents = {one.source: one.source.rpartition("/")[0] for one in found}
    names = {source: parent or source for source, parent in parents.items()}
    cells = {(one.source, one.device) for one in found}
    is_clear = len({(names[source], device) for source, device in cells}) == len(cells)
    return names if is_clear else {source: source for source in names}


def _teacher_accuracy(run: Run) -> Accuracy | None:
    """On the same images as the student, where it was validated."""
    student = None if run.validation is None else run.validation.student
    if student is not None and student.teacher_accuracy is not None:
        return student.teacher_accuracy
    return None if run.teacher_accuracy is None else run.teacher_accuracy.accuracy


def _difference(top1: Interval | None, teacher: Accuracy | None) -> Cell:
    """Points above (+) or below (−) the teacher."""
    if top1 is None or teacher is None:
        return number(None)
    points = fmt.points(top1.value - teacher.top1.value)
    return number("0.0" if points == "+0.0" else points)


def _fastest(found: Sequence[Choice]) -> Iterator[Choice]:
    """Each student's precision once on each device: as it was picked, else on its fastest runner, torch last."""
    picked = {id(one) for one in best_of(found).values() if one is not None}
    cells: dict[tuple[str, str, str], Choice] = {}

    def rank(one: Choice) -> tuple[object, ...]:
        return (
            id(one) not in picked,
            one.runner == "torch",
            one.latency_p50_ms is None,
            one.latency_p50_ms or 0.0,
        )

    for one in found:
        if one.role == "student":
            key = (one.device, one.source, one.row.precision)
            if key not in cells or rank(one) < rank(cells[key]):
                cells[key] = one
    yield from cells.values()


def _order(one: Choice) -> tuple[int, bool, float]:
    return (_RANK.index(one.verdict), one.latency_p50_ms is None, one.latency_p50_ms or 0.0)


def _runner(one: Choice) -> str:
    """The runner without its precision, which has its own place."""
    name = fmt.runner_name(one.row.runner, one.row.provider, "", one.row.threads)
    return ", ".join(part for part in name.split(", ") if part)


def _costs(one: Choice | None) -> dict[str, Cell]:
    latency = None if one is None else one.row.latency
    return {
        "p50 (ms)": number(None if latency is None else latency.p50_ms),
        "p99 (ms)": number(None if latency is None else latency.p99_ms),
        "size (MB)": number(None if one is None else one.size_mb),
    }


def _verdict(one: Choice, is_best: bool, stale: bool) -> Cell:
    if stale and one.verdict != "NOT JUDGED":
        return Cell("STALE", "stale")
    if is_best:
        return verdict_cell("PASS", "PASS, best")
    return Cell("not judged", "missing") if one.verdict == "NOT JUDGED" else verdict_cell(one.verdict)


def _drop_empty(rows: list[dict[str, Cell]]) -> list[dict[str, Cell]]:
    """Leave out the columns that hold nothing."""
    costs = (_AGAINST, "p50 (ms)", "p99 (ms)", "size (MB)")
    empty = [head for head in costs if all(head in row and row[head].text == "–" for row in rows)]
    return [{head: cell for head, cell in row.items() if head not in empty} for row in rows]
