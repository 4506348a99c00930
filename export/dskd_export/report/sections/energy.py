"""What an image costs in energy, and under which clocks and temperatures it was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from dskd_export.documents.base import Interval
from dskd_export.documents.benchmark import BenchmarkRow, Course, EnergyFacts, TelemetryFacts
from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import Block, Cell, Note, Table, number

_NOT_TOLD = number("–")


def cell(row: BenchmarkRow) -> Cell:
    """The energy of an image in mJ with its interval; a dash where there is none, whose reason is a note."""
    energy = row.energy_per_image_mj
    return _NOT_TOLD if energy is None else number(_interval(energy))


def notes(rows: Sequence[BenchmarkRow]) -> list[Block]:
    """Whose energy it is, and for which rows it is missing and why; each once."""
    blocks: list[Block] = []
    measured = [row.energy for row in rows if row.energy and row.energy.per_image_mj]
    for scope in dict.fromkeys(_scope(energy) for energy in measured):
        blocks.append(Note(f"Energy: {scope}. The interval tells how steady the power was."))
    timed = [row for row in rows if row.latency is not None]
    reasons = Counter(
        row.energy_reason or "it was not looked for" for row in timed if row.energy_per_image_mj is None
    )
    for reason, count in reasons.items():
        where = "" if count == len(timed) else f" in {count} of {len(timed)} rows"
        blocks.append(Note(f"Energy not measured{where}: {reason}.", "missing"))
    blocks += [Note(f"Energy: {words}.", "warning") for words in dict.fromkeys(_warnings(measured))]
    return blocks


def conditions(rows: Sequence[BenchmarkRow], name: Callable[[BenchmarkRow], str]) -> list[Block]:
    """Power, clocks and temperatures of each row, folded; nothing where nobody looked."""
    columns = (
        "model and runner",
        "part",
        "batch",
        "power (W)",
        "at rest (W)",
        "above rest (mJ/image)",
        "clocks (MHz)",
        "temperatures (°C)",
        "throttled",
        "power mode",
        "others",
        "samples/s",
        "gaps",
    )
    cells = [
        [
            Cell(name(row)),
            Cell(row.part.replace("_", " ")),
            number(str(row.batch)),
            *_conditions(row.telemetry, row),
        ]
        for row in rows
        if row.telemetry is not None
    ]
    if not cells:
        return []
    note = (
        "Clocks and temperatures: at the beginning → at the end of what was measured. Others: cores that other "
        "processes kept busy, and processes on the same GPU. Gaps: stretches without samples, and their share of "
        "the time. –: not told by this machine."
    )
    return [
        Table("conditions-table", "Power, clocks and temperatures while timing", columns, cells, note, folded=True)
    ]


def _conditions(telemetry: TelemetryFacts, row: BenchmarkRow) -> list[Cell]:
    energy = row.energy or EnergyFacts(source=telemetry.source)
    above = energy.above_idle_per_image_mj
    cores = telemetry.other_cpu_cores
    others = [*([] if cores is None else [f"{cores:.1f} cores"]), *telemetry.other_processes]
    gaps = "–" if energy.gaps is None or energy.gap_share is None else f"{energy.gaps}"
    if energy.gaps and energy.gap_share:
        gaps += f" ({fmt.percent(energy.gap_share)})"
    return [
        _value(energy.mean_w),
        _value(energy.idle_w),
        _NOT_TOLD if above is None else number(_interval(above)),
        _courses(telemetry.clocks_mhz, 0),
        _courses(telemetry.temperatures_c, 1),
        Cell("; ".join(telemetry.throttled), "stale") if telemetry.throttled else Cell("no"),
        Cell(telemetry.power_mode or "–"),
        Cell("; ".join(others) or "–"),
        number(f"{telemetry.rate_hz:.1f}"),
        number(gaps),
    ]


def _scope(energy: EnergyFacts) -> str:
    rails = " + ".join(energy.rails)
    way = "its counter" if energy.method == "counter" else "samples of its power"
    return f"all of {energy.scope} ({rails}), rest included, from {way} by {energy.source}"


def _warnings(energies: Sequence[EnergyFacts]) -> list[str]:
    found = [energy.note for energy in energies if energy.note]
    found += [f"without the power at rest: {energy.idle_reason}" for energy in energies if energy.idle_reason]
    gaps = [energy for energy in energies if energy.gaps]
    if gaps:
        worst = max(energy.gap_share or 0.0 for energy in gaps)
        found.append(
            f"{len(gaps)} of {len(energies)} rows have gaps in their samples, "
            f"up to {fmt.percent(worst)} of the time"
        )
    return found


def _courses(values: Mapping[str, Course], digits: int) -> Cell:
    words = [
        f"{name} {course.start:.{digits}f} → {course.end:.{digits}f}" for name, course in sorted(values.items())
    ]
    return Cell(", ".join(words) or "–")


def _interval(interval: Interval) -> str:
    low, high = fmt.significant(interval.low), fmt.significant(interval.high)
    return f"{fmt.significant(interval.value)} ({low}–{high})"


def _value(value: float | None) -> Cell:
    return _NOT_TOLD if value is None else number(fmt.significant(value))
