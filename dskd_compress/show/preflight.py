"""What the checks before a run found, on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dskd_compress.console import Output
from dskd_compress.preflight import Preflight


def print_preflight(preflight: Preflight, output: Output) -> None:
    """Print in one or two lines what a run needs."""
    train, val = (_format_count(count) for count in (preflight.train_images, preflight.val_images))
    output.plain(
        f"Checked in {preflight.seconds:.1f} s: {train} training and {val} validation images, "
        f"{preflight.classes} classes"
    )
    if preflight.sample_size:
        output.plain(preflight.sample_size)
    needs = []
    if preflight.disk_mb is not None:
        needs.append(f"disk {_format_mb(preflight.disk_mb)} or more{_format_free(preflight.disk_free_mb)}")
    if preflight.memory_mb is not None:
        needs.append(f"memory about {_format_mb(preflight.memory_mb)}{_format_free(preflight.memory_free_mb)}")
    if needs:
        output.plain(f"It needs {'; '.join(needs)}")


def print_stages(names: Sequence[str], pending: Mapping[str, str], output: Output) -> None:
    """Print which stages would run, and why."""
    rows = [[name, pending.get(name, "up to date, skipped")] for name in names]
    output.table("Stages", ["stage", "why"], rows)


def _format_count(count: int | None) -> str:
    return "an unknown number of" if count is None else f"{count:,}"


def _format_mb(value: float) -> str:
    return f"{value:,.0f} MB" if value < 9_999.5 else f"{value / 1e3:,.0f} GB"


def _format_free(free_mb: float | None) -> str:
    return "" if free_mb is None else f", {_format_mb(free_mb)} free"
