"""Write everything that was timed as one CSV table: a row for each cell and part, units in the names."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from dskd_export.documents.base import Interval
from dskd_export.documents.benchmark import BenchmarkRow, LayerProfile
from dskd_export.report.choices import Choice, Source

COLUMNS = (
    *("source", "device", "model", "architecture", "method", "runner", "provider", "precision", "batch"),
    *("threads", "streams", "part", "latency_p50_ms", "latency_p50_ms_low", "latency_p50_ms_high"),
    *("latency_p90_ms", "latency_p95_ms", "latency_p99_ms", "latency_p99_ms_low", "latency_p99_ms_high"),
    *("latency_p999_ms", "latency_mean_ms", "coefficient_of_variation", "calls", "stable", "unstable_reason"),
    *("throughput_images_per_s", "energy_per_image_mj", "energy_per_image_mj_low", "energy_per_image_mj_high"),
    *("energy_missing_reason", "size_mb", "resident_memory_mb", "device_memory_mb", "load_ms"),
    *("first_inference_ms", "top1", "top1_low", "top1_high", "verdict", "verdict_reason", "not_measured_reason"),
    *("quantize_share", "reformat_share", "bundle_sha256", "commit", "measured_at"),
)

_FROM_ROW = (
    *("model", "runner", "provider", "precision", "batch", "threads", "streams", "part", "size_mb", "load_ms"),
    *("first_inference_ms", "throughput_images_per_s"),
)

# A spreadsheet takes text that begins with one of these for a formula (OWASP, "CSV Injection"); the last
# four are their full-width forms.
_FORMULA = ("=", "+", "-", "@", "\t", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def csv_table(sources: Sequence[Source], found: Sequence[Choice]) -> str:
    """Write the table; an empty cell was not measured, and its row has the reason.

    Text that a spreadsheet would compute gets a leading apostrophe; numbers stay numbers.

    Args:
        sources: of the rows.
        found: accuracy and verdict of each model.
    """
    known = {(one.source, *_key(one.row)): one for one in found}
    buffer = io.StringIO()
    table = csv.DictWriter(buffer, COLUMNS, restval="", lineterminator="\n")
    table.writeheader()
    for source in sources:
        benchmark = source.run.benchmark
        profiles = {} if benchmark is None else {_profile_key(one): one for one in benchmark.profiles}
        for row in benchmark.rows if benchmark is not None else ():
            assert benchmark is not None
            one = known.get((source.name, *_key(row)))
            profile = profiles.get(_profile_key(row))
            cells = {
                "source": source.name,
                "device": source.device,
                **_of_row(row),
                **({} if one is None else _interval("top1", one.top1)),
                "architecture": None if one is None else one.model,
                "method": None if one is None else one.method,
                "verdict": None if one is None else one.verdict,
                "verdict_reason": None if one is None else one.reason,
                "quantize_share": None if profile is None else profile.quantize_share,
                "reformat_share": None if profile is None else profile.reformat_share,
                "bundle_sha256": benchmark.bundle_sha256,
                "commit": benchmark.provenance.commit or "",
                "measured_at": benchmark.provenance.started_at,
            }
            table.writerow({name: _harmless(value) for name, value in cells.items()})
    return buffer.getvalue()


def _harmless(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = value.replace("\r", "\n")  # csv quotes line feeds alone, and a carriage return would begin a row
    return f"'{text}" if text.startswith(_FORMULA) else text


def _key(row: BenchmarkRow) -> tuple[object, ...]:
    """A choice stands for all batches and parts of a model: accuracy and verdict are the model's."""
    return (row.model, row.runner, row.provider, row.precision, row.threads)


def _profile_key(one: BenchmarkRow | LayerProfile) -> tuple[object, ...]:
    """A profile is that of one batch size and one number of threads."""
    return (one.model, one.runner, one.provider, one.precision, one.batch, one.threads)


def _of_row(row: BenchmarkRow) -> dict[str, object]:
    found: dict[str, object] = {
        **{name: getattr(row, name) for name in _FROM_ROW},
        "not_measured_reason": row.unavailable,
        "energy_missing_reason": row.energy_reason,
        **_interval("energy_per_image_mj", row.energy_per_image_mj),
    }
    if row.memory is not None:
        found["resident_memory_mb"] = row.memory.resident_mb
        found["device_memory_mb"] = row.memory.device_mb
    latency = row.latency
    if latency is not None:
        for name in ("p50", "p90", "p95", "p99", "p999", "mean"):
            found[f"latency_{name}_ms"] = getattr(latency, f"{name}_ms")
        for name in ("p50", "p99"):
            interval = latency.intervals_ms.get(name)
            if interval is not None:
                found |= {f"latency_{name}_ms_low": interval.low, f"latency_{name}_ms_high": interval.high}
        found |= {
            "coefficient_of_variation": latency.coefficient_of_variation,
            "calls": latency.iterations,
            "stable": str(latency.stable).lower(),
            "unstable_reason": latency.reason,
        }
    return found


def _interval(name: str, interval: Interval | None) -> dict[str, object]:
    if interval is None:
        return {}
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
