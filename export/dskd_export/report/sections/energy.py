"""Energy of an image, and the clocks and temperatures that it was measured under."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from dskd_export.documents.benchmark import BenchmarkRow, Course, EnergyFacts, TelemetryFacts
from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import Block, Note
from dskd_export.report.tables import Cell, make_table, number


def energy_notes(rows: Sequence[BenchmarkRow]) -> list[Block]:
    """Name the scope of the energy, and for which rows it is missing and why; each once."""
    blocks: list[Block] = []
    measured = [row.energy for row in rows if row.energy and row.energy.per_image_mj]
    for scope in dict.fromkeys(_scope(energy) for energy in measured):
        blocks.append(Note(f"Energy: {scope}. The interval shows how steady the power was."))
    timed = [row for row in rows if row.latency is not None]
    reasons = Counter(row.energy_reason or "not requested" for row in timed if row.energy_per_image_mj is None)
    for reason, count in reasons.items():
        where = "" if count == len(timed) else f" in {count} of {len(timed)} rows"
        blocks.append(Note(f"Energy not measured{where}: {reason}.", "missing"))
    blocks += [Note(f"Energy: {words}.", "warning") for words in dict.fromkeys(_warnings(measured))]
    return blocks


def condition_table(rows: Sequence[BenchmarkRow], name: Callable[[BenchmarkRow], str]) -> list[Block]:
    """List power, clocks and temperatures of each row, folded; nothing where there is no telemetry."""
    cells = [
        {
            "model and runner": Cell(name(row)),
            "part": Cell(row.part.replace("_", " ")),
            "batch": number(str(row.batch)),
            **_conditions(row.telemetry, row),
        }
        for row in rows
        if row.telemetry is not None
    ]
    if not cells:
        return []
    note = (
        "Clocks and temperatures: at the start → at the end of the measurement. Others: cores that other "
        "processes kept busy, and processes on the same GPU. Gaps: stretches without samples, and their share of "
        "the time. –: not reported by this machine."
    )
    title = "Power, clocks and temperatures while timing"
    return [make_table("conditions-table", title, cells, note, folded=True)]


def _conditions(telemetry: TelemetryFacts, row: BenchmarkRow) -> dict[str, Cell]:
    energy = row.energy or EnergyFacts(source=telemetry.source)
    cores = telemetry.other_cpu_cores
    others = [*([] if cores is None else [f"{cores:.1f} cores"]), *telemetry.other_processes]
    gaps = "–" if energy.gaps is None or energy.gap_share is None else f"{energy.gaps}"
    if energy.gaps and energy.gap_share:
        gaps += f" ({fmt.percent(energy.gap_share)})"
    return {
        "power (W)": number(energy.mean_w),
        "at rest (W)": number(energy.idle_w),
        "above rest (mJ/image)": number(energy.above_idle_per_image_mj),
        "clocks (MHz)": _courses(telemetry.clocks_mhz, 0),
        "temperatures (°C)": _courses(telemetry.temperatures_c, 1),
        "throttled": Cell("; ".join(telemetry.throttled), "stale") if telemetry.throttled else Cell("no"),
        "power mode": Cell(telemetry.power_mode or "–"),
        "others": Cell("; ".join(others) or "–"),
        "samples/s": number(f"{telemetry.rate_hz:.1f}"),
        "gaps": number(gaps),
    }


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
