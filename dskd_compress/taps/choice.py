"""Choice of the tap of a pair, where the recipe says auto."""

from __future__ import annotations

from typing import Literal

from torch import nn

from dskd_compress.taps.head import find_head, find_teacher_tap
from dskd_compress.taps.probe import Probe
from dskd_compress.taps.tap import TapKind, find_tap
from dskd_export.errors import TapError

_MAX_MAP_CHANNELS = 1024


def choose_tap(
    requested: Literal["auto", "vector", "map"],
    teacher: nn.Module,
    teacher_seen: Probe,
    student: nn.Module,
    student_seen: Probe,
    *,
    guided: bool = False,
) -> TapKind:
    """Resolve `auto`.

    Where features are compared: a map where both models have one of several places.

    Where the teacher's head guides: a map where both are CNNs with a real grid, and the head pools by the mean.
    A teacher of more than 1024 channels gets the vector tap: denoising its maps costs more than the student.
    Also a map where both have one and no head of the teacher reads its vector (VOLO).
    """
    if requested != "auto":
        return requested
    try:
        taps = find_tap(teacher, teacher_seen, "map"), find_tap(student, student_seen, "map")
        head = find_head(teacher, teacher_seen, taps[0]) if guided else None
    except TapError:
        return "vector"
    if head is None:
        return "map" if all(tap.grid is not None and tap.grid != (1, 1) for tap in taps) else "vector"
    cnn = all(tap.layout == "NCHW" and tap.grid is not None and min(tap.grid) > 1 for tap in taps)
    if head.linear is not None and cnn and taps[0].channels <= _MAX_MAP_CHANNELS:
        return "map"
    try:
        find_teacher_tap(teacher, teacher_seen, "vector")
    except TapError:
        return "map"
    return "vector"
