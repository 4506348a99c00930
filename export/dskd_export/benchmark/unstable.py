"""Sum up why measurements are UNSTABLE, in a few lines for the report and the terminal. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dskd_export.documents.benchmark import Latency

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def list_unstable_reasons(latencies: Iterable[Latency]) -> list[str]:
    """List the reasons of unstable measurements, those that differ in their figures alone once, with their count.

    Args:
        latencies: stable ones are skipped.
    """
    found: dict[str, list[str]] = {}
    for latency in latencies:
        if not latency.stable:
            for reason in (latency.reason or "no reason was recorded").split("; "):
                found.setdefault(_NUMBER.sub("#", reason), []).append(reason)
    return [
        reasons[0]
        if len(reasons) == 1
        else f"{_largest(reasons)} ({len(reasons)} measurements, this is the worst)"
        if len(set(reasons)) > 1
        else f"{reasons[0]} ({len(reasons)} measurements)"
        for reasons in found.values()
    ]


def _largest(reasons: list[str]) -> str:
    return max(reasons, key=lambda reason: [float(number) for number in _NUMBER.findall(reason)])
