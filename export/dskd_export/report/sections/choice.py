"""Show what can be shipped, in charts and one table: accuracy, latency, energy, size, by device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from dskd_export.documents.base import Interval
from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import Block, Figure, Gallery, Key, Note, Section
from dskd_export.report.chart_parts import keys_for
from dskd_export.report.choices import Choice, best_of
from dskd_export.report.model_charts import Dot, pareto_chart
from dskd_export.report.tables import Cell, make_table, missing, number, verdict_cell

TITLE = "What can be shipped"

# Title, axis and value of each picture.
_COSTS: dict[str, tuple[str, str, Callable[[Choice], Interval | None]]] = {
    "latency": ("Accuracy and latency", "p50 latency of a call (ms, log scale)", lambda one: one.p50_ms),
    "energy": (
        "Accuracy and energy",
        "energy per image (mJ, log scale)",
        lambda one: one.row.energy_per_image_mj,
    ),
    "size": ("Accuracy and size", "file size (MB, log scale)", lambda one: one.size),
}


def section_from_choices(found: Sequence[Choice], *, several: bool) -> Section:
    """Draw the models, and list devices and precisions.

    Args:
        found: as `choices` gives them.
        several: they come from more than one run or device.
    """
    if all(one.row.latency is None for one in found):
        return Section("choices", TITLE, [Note("Nothing was timed. Run: dskd-compress benchmark", "missing")])
    chosen = {id(one) for one in best_of(found).values() if one is not None}
    blocks: list[Block] = [*_figures(found, several), *_matrix(found, chosen, several)]
    batches = sorted({one.row.batch for one in found})
    blocks.append(
        Note(
            f"Batch {', '.join(map(str, batches))}, arrays in, logits out; 95 % intervals in brackets where there "
            "are enough calls. Accuracy belongs to the bundle, on the validation images; time, energy and memory "
            "belong to the device. Best: the fastest student that passes accuracy and budget."
        )
    )
    return Section("choices", TITLE, blocks)


def _figures(found: Sequence[Choice], several: bool) -> list[Block]:
    drawn = [one for one in found if one.top1 is not None and one.p50_ms is not None]
    if not drawn:
        return [Note("No model has both accuracy and latency: nothing to draw.", "missing")]
    groups = list(dict.fromkeys(_group(one, several) for one in drawn))
    keys = [Key(key.label, key.colour) for key in keys_for(groups)]
    figures = []
    for name, (title, axis, value) in _COSTS.items():
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
                caption="Circles: students, filled where they pass. Squares: teachers. Lines: 95 % intervals. "
                "Better: up and to the left.",
            )
        )
    return [Gallery(figures)]


def _matrix(found: Sequence[Choice], chosen: set[int], several: bool) -> list[Block]:
    """Make the table; a column without any value becomes a note below it."""
    ordered = sorted(found, key=_order)
    no_energy = "; ".join(dict.fromkeys(one.row.energy_reason for one in ordered if one.row.energy_reason))
    absent = {
        title: why
        for title, values, why in (
            ("energy (mJ/image)", [one.row.energy_per_image_mj for one in ordered], no_energy or "not requested"),
            ("size (MB)", [one.row.size_mb for one in ordered], "no timed model is a file"),
            ("memory (MB)", [one.memory_mb for one in ordered], "not requested"),
        )
        if all(value is None for value in values)
    }
    rows = []
    for one in ordered:
        row = {
            "model": Cell(_model(one, several)),
            "verdict": _verdict(one, id(one) in chosen),
            "runner": Cell(fmt.runner_of(one.row), nowrap=True),
            **({"device": Cell(one.device), "from": Cell(one.source)} if several else {}),
            "top-1": missing("not validated") if one.top1 is None else number(fmt.percent_interval(one.top1)),
            "p50 (ms)": number(one.p50_ms),
            "p99 (ms)": number(one.p99_ms),
            "images/s": number(one.row.throughput_images_per_s),
            "energy (mJ/image)": number(one.row.energy_per_image_mj),
            "size (MB)": number(one.row.size_mb),
            "memory (MB)": number(one.memory_mb),
        }
        rows.append({head: cell for head, cell in row.items() if head not in absent})
    notes = list(_reasons(ordered, several))
    if absent:
        words = "; ".join(f"{title.partition(' (')[0]}: {why}" for title, why in absent.items())
        notes.append(Note(f"Not measured here: {words}.", "missing"))
    return [make_table("choices-table", "Devices, models and precisions", rows), *notes]


def _reasons(found: Sequence[Choice], several: bool) -> Iterator[Note]:
    """Say why students do not pass, each reason once with the models that share it."""
    sharing: dict[tuple[str, str], list[str]] = {}
    for one in found:
        if one.verdict in ("FAIL", "NOT SHOWN") and one.reason:
            sharing.setdefault((one.verdict, one.reason), []).append(_name(one, several))
    for (verdict, reason), names in sharing.items():
        yield Note(f"{verdict}: {reason} ({'; '.join(dict.fromkeys(names))}).")


def _model(one: Choice, several: bool) -> str:
    return ", ".join(filter(None, (f"{one.role} {one.model}".strip(), one.method if several else "")))


def _order(one: Choice) -> tuple[object, ...]:
    return (one.device, one.role == "student", one.row.latency is None, one.p50_ms.value if one.p50_ms else 0.0)


def _verdict(one: Choice, chosen: bool) -> Cell:
    unstable = "" if one.row.latency is None or one.row.latency.stable else ", UNSTABLE"
    if chosen:
        return verdict_cell("PASS", f"PASS, best{unstable}")
    if one.verdict != "NOT JUDGED":
        return verdict_cell(one.verdict, f"{one.verdict}{unstable}")
    return Cell(f"not judged{unstable}", "text", one.reason)


def _group(one: Choice, several: bool) -> str:
    """What shares a colour: a device where there are several, else a runner."""
    if several:
        return one.device
    return fmt.runner_name(one.row.runner, one.row.provider, "", one.row.threads).replace(", ,", ",")


def _name(one: Choice, several: bool) -> str:
    return f"{f'{one.source}, ' if several else ''}{one.role} {fmt.runner_of(one.row)}"
