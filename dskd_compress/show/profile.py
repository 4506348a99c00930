"""Tables of profiles: where the time of each model goes. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

from dskd_compress.console import Output
from dskd_export.benchmark.profile import describe_overhead, is_plausible, measure_overhead
from dskd_export.documents.benchmark import BenchmarkDocument, LayerProfile

_OPERATORS = 6
_LONGEST_NAME = 40


def print_profiles(documents: Sequence[tuple[str, BenchmarkDocument]], output: Output) -> None:
    """Print where the time of each model goes, its slowest nodes, and why one is slower; nothing without profiles.

    Args:
        documents: name of the device, empty where there is one, and its benchmark.
        output: of the command.
    """
    named = [(device, profile) for device, document in documents for profile in document.profiles]
    measured = [(device, profile) for device, profile in named if profile.sum_ms is not None]
    output.table(
        f"Where the time goes, batch {', '.join(dict.fromkeys(str(profile.batch) for _, profile in measured))}",
        ["model", "sum ms", "p50 ms", "profiler", "Q/DQ %", "reformat %"],
        [_cells(device, profile) for device, profile in measured],
    )
    for device, profile in measured:
        output.table(
            f"Slowest: {_name(device, profile)}",
            ["node", "operator", "p50 us", "%"],
            [
                [_shorten(layer.name), layer.operator, f"{layer.p50_us:.1f}", f"{100 * layer.share:.1f}"]
                for layer in profile.slowest
            ],
        )
        shares = ", ".join(f"{row.operator} {row.share:.0%}" for row in profile.operators[:_OPERATORS])
        output.plain(f"By operator: {shares}")
    for device, profile in measured:
        prefix = f"{device}: " if device else ""
        output.plain(f"{prefix}{profile.model} {profile.summary}")
    for device, profile in measured:
        if not is_plausible(profile):
            output.plain(f"Read shares, not times, of {_name(device, profile)}: its {describe_overhead(profile)}.")
    for device, profile in named:
        if profile.reason:
            output.warn(f"no profile of {_name(device, profile)}: {profile.reason}")


def _cells(device: str, profile: LayerProfile) -> list[str]:
    latency, overhead = profile.latency_p50_ms, measure_overhead(profile)
    return [
        _name(device, profile),
        f"{profile.sum_ms:.3f}",
        "-" if latency is None else f"{latency.value:.3f}",
        "-" if overhead is None else f"{100 * overhead:+.0f} %",
        _percent(profile.quantize_share),
        _percent(profile.reformat_share),
    ]


def _name(device: str, profile: LayerProfile) -> str:
    where = f"{device} " if device else ""
    return f"{where}{profile.model} {profile.runner} {profile.provider} {profile.precision}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _shorten(name: str) -> str:
    """Keep the end of a long name, where nodes of one model differ."""
    return name if len(name) <= _LONGEST_NAME else f"...{name[3 - _LONGEST_NAME :]}"
