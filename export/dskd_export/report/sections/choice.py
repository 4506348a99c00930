"""What can be shipped, in one picture and one table: accuracy, latency, energy, size, by device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dskd_export.documents.base import Interval
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
    number,
    verdict_cell,
)
from dskd_export.report.choices import Choice, best_of
from dskd_export.report.pareto_chart import STYLES, Dot, pareto_chart

TITLE = "What can be shipped"


def choice(found: Sequence[Choice], *, several: bool) -> Section:
    """The picture, and the matrix of devices and precisions.

    Args:
        found: as `choices` gives them.
        several: they come from more than one run or device.
    """
    if all(one.row.latency is None for one in found):
        return Section("choices", TITLE, [Note("Nothing was timed. Made by: dskd-compress benchmark", "missing")])
    chosen = {id(one) for one in best_of(found).values() if one is not None}
    blocks: list[Block] = [*_figures(found, several), *_matrix(found, chosen, several)]
    batches = sorted({one.row.batch for one in found})
    blocks.append(
        Note(
            f"Batch {', '.join(map(str, batches))}, arrays in, logits out; 95 % intervals in brackets where there "
            "are calls enough. Accuracy is the bundle's, on the validation images; time, energy and memory are of "
            "the device. The choice for a device is the fastest student that passes accuracy and budget."
        )
    )
    return Section("choices", TITLE, blocks)


def _figures(found: Sequence[Choice], several: bool) -> list[Block]:
    drawn = [one for one in found if one.top1 is not None and one.p50_ms is not None]
    if not drawn:
        return [Note("No accuracy and latency of one model are both known, so nothing can be drawn.", "missing")]
    groups = list(dict.fromkeys(_group(one, several) for one in drawn))
    keys = [Key(group, STYLES[index % len(STYLES)][0]) for index, group in enumerate(groups)]
    figures = []
    for name, title, axis, value in (
        ("latency", "Accuracy and latency", "p50 latency of a call (ms, log scale)", lambda one: one.p50_ms),
        (
            "energy",
            "Accuracy and energy",
            "energy of an image (mJ, log scale)",
            lambda one: one.row.energy_per_image_mj,
        ),
        ("size", "Accuracy and size", "size of the file (MB, log scale)", lambda one: _exact(one.row.size_mb)),
    ):
        dots = [
            Dot(
                group=groups.index(_group(one, several)),
                label=_name(one, several),
                x=found_x,
                top1=one.top1,
                passes=one.verdict == "PASS",
                teacher=one.role == "teacher",
            )
            for one in drawn
            if (found_x := value(one)) is not None and one.top1 is not None
        ]
        if not dots:
            continue
        words = "; ".join(
            f"{dot.label}: {fmt.percent(dot.top1.value)} at {fmt.significant(dot.x.value)}" for dot in dots
        )
        figures.append(
            Figure(
                f"pareto-{name}",
                title,
                f"Top-1 accuracy against {axis}. {words}.",
                pareto_chart(dots, axis, [key.colour for key in keys]),
                legend=keys,
                caption="Circles: students; filled: it passes. Squares: teachers. Lines: 95 % intervals. "
                "Up and to the left is better.",
            )
        )
    return [Gallery(figures)]


def _matrix(found: Sequence[Choice], chosen: set[int], several: bool) -> list[Block]:
    """The table; a column that no row has is left out, and its reason told below."""
    ordered = sorted(found, key=_order)
    columns: list[tuple[str, list[Cell]]] = [
        ("model", [Cell(_model(one, several)) for one in ordered]),
        *((("device", [Cell(one.device) for one in ordered]),) if several else ()),
        *((("from", [Cell(one.source) for one in ordered]),) if several else ()),
        ("runner", [Cell(fmt.runner_of(one.row)) for one in ordered]),
        ("p50 (ms)", [_number(one.p50_ms) for one in ordered]),
        ("p99 (ms)", [_number(one.p99_ms) for one in ordered]),
        ("images/s", [_number(_exact(one.row.throughput_images_per_s)) for one in ordered]),
    ]
    absent = []
    for title, values, why in (
        ("energy (mJ/image)", [one.row.energy_per_image_mj for one in ordered], _why_no_energy(ordered)),
        ("size (MB)", [_exact(one.row.size_mb) for one in ordered], "no model that was timed is a file"),
        ("memory (MB)", [_exact(one.memory_mb) for one in ordered], "it was not looked for"),
    ):
        if any(value is not None for value in values):
            columns.append((title, [_number(value) for value in values]))
        else:
            absent.append(f"{title.partition(' (')[0]}: {why}")
    columns += [
        ("top-1", [_top1(one) for one in ordered]),
        ("verdict", [_verdict(one, id(one) in chosen) for one in ordered]),
    ]
    rows = list(zip(*(cells for _, cells in columns), strict=True))
    table = Table("choices-table", "Devices, models and precisions", [title for title, _ in columns], rows)
    notes = list(_reasons(ordered, several))
    if absent:
        notes.append(Note(f"Not measured here: {'; '.join(absent)}.", "missing"))
    return [table, *notes]


def _reasons(found: Sequence[Choice], several: bool) -> Iterator[Note]:
    """Why a student does not pass, each reason once with the models that share it."""
    sharing: dict[tuple[str, str], list[str]] = {}
    for one in found:
        if one.verdict in ("FAIL", "NOT SHOWN") and one.reason:
            sharing.setdefault((one.verdict, one.reason), []).append(_name(one, several))
    for (verdict, reason), names in sharing.items():
        yield Note(f"{verdict}: {reason} ({'; '.join(dict.fromkeys(names))}).")


def _why_no_energy(found: Sequence[Choice]) -> str:
    return (
        "; ".join(dict.fromkeys(one.row.energy_reason for one in found if one.row.energy_reason))
        or "not looked for"
    )


def _model(one: Choice, several: bool) -> str:
    return ", ".join(filter(None, (f"{one.role} {one.model}".strip(), one.method if several else "")))


def _top1(one: Choice) -> Cell:
    return missing("not validated") if one.top1 is None else number(fmt.percent_interval(one.top1))


def _order(one: Choice) -> tuple[object, ...]:
    return (one.device, one.role == "student", one.row.latency is None, one.p50_ms.value if one.p50_ms else 0.0)


def _verdict(one: Choice, chosen: bool) -> Cell:
    unstable = "" if one.row.latency is None or one.row.latency.stable else ", UNSTABLE"
    if chosen:
        return verdict_cell("PASS", f"PASS: the choice here{unstable}")
    if one.verdict != "NOT JUDGED":
        return verdict_cell(one.verdict, f"{one.verdict}{unstable}")
    return Cell(f"not judged{f': {one.reason}' if one.reason else ''}{unstable}")


def _number(interval: Interval | None) -> Cell:
    return number("–" if interval is None else fmt.around(interval))


def _exact(value: float | None) -> Interval | None:
    return None if value is None else Interval(value=value, low=value, high=value)


def _group(one: Choice, several: bool) -> str:
    """What shares a colour: a device where there are several, else a runner."""
    if several:
        return one.device
    return fmt.runner_name(one.row.runner, one.row.provider, "", one.row.threads).replace(", ,", ",")


def _name(one: Choice, several: bool) -> str:
    return f"{f'{one.source}, ' if several else ''}{one.role} {fmt.runner_of(one.row)}"
