"""Read the profile that ONNX Runtime writes: events in Chrome's trace format.

A profile has, in this order, the events of each call: one for every node, then `model_run`. Where a GPU provider
reports its kernels, they follow the event of their node and name it (`parent_name`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dskd_export.errors import DataError, ModelError
from dskd_export.files.bounded import read_bounded

Event = Mapping[str, Any]

MOST_BYTES = 1 << 30
_KERNEL_TIME = "_kernel_time"
_HINT = "Install another version of onnxruntime: pip install -U onnxruntime"


def read_events(path: Path) -> list[Event]:
    """Read all events of a profile.

    Raises:
        ModelError: it is missing, too large, or not a list of events.
    """
    try:
        # Not the strict parser for files of users: this process has just written it, and it may hold
        # more values than any document of ours.
        events = json.loads(read_bounded(path, MOST_BYTES))
    except (OSError, DataError, ValueError, RecursionError) as error:
        raise _unreadable("it cannot be read as JSON") from error
    if not isinstance(events, list) or not all(isinstance(event, Mapping) for event in events):
        raise _unreadable("it is not a list of events")
    return events


def is_node(event: Event) -> bool:
    """Whether an event is the time of one node in one call."""
    return event.get("cat") == "Node" and str(event.get("name", "")).endswith(_KERNEL_TIME)


def name_node(event: Event) -> str:
    """Return the name of an event's node; empty if the node has none."""
    return str(event.get("name", "")).removesuffix(_KERNEL_TIME)


def arguments_of(event: Event) -> Mapping[str, Any]:
    """Return the facts of an event: operator, provider, types and shapes."""
    found = event.get("args")
    return found if isinstance(found, Mapping) else {}


def duration_us(event: Event) -> float:
    """Return the time of an event.

    Raises:
        ModelError: it has none.
    """
    found = event.get("dur")
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not 0 <= found < float("inf"):
        raise _unreadable(f"event {str(event.get('name', ''))[:80]!r} has no duration")
    return float(found)


def split_calls(events: Sequence[Event], calls: int) -> list[list[Event]]:
    """Split the events into those of each call.

    Args:
        events: of one profile.
        calls: that were made.

    Raises:
        ModelError: the profile has another number of calls.
    """
    found: list[list[Event]] = []
    now: list[Event] = []
    for event in events:
        if event.get("cat") == "Session" and event.get("name") == "model_run":
            found.append(now)
            now = []
        else:
            now.append(event)
    if len(found) != calls:
        raise _unreadable(f"it has {len(found)} of {calls} calls")
    return found


def _unreadable(why: str) -> ModelError:
    return ModelError(f"The profile of ONNX Runtime cannot be used: {why}.", _HINT)
