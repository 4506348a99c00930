"""Ctrl-C and SIGTERM as a request to stop between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from dskd_compress.interrupt import ctrl_c_came


class StopRequest:
    """Context manager: the first signal asks for a clean stop, a second Ctrl-C ends at once.

    Signals can be caught in the main thread only; elsewhere it never fires.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        # Libraries swallow an interrupt that reaches them in a callback; it counts all the same.
        self.requested: str | None = "SIGINT" if ctrl_c_came() else None
        self._previous: dict[int, Any] = {}

    def _catch(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._catch) for number in self._SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
