"""Remember Ctrl-C: a library may turn the KeyboardInterrupt into another error."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

LONGEST_WAIT_S = 2.0
_RETRY_S = 0.05

_came = False
_first_s = 0.0


def watch_for_ctrl_c() -> None:
    """Remember a Ctrl-C from now on, and raise KeyboardInterrupt for it. Call it before long imports.

    Within an import the exception waits for its end: torch and others abort the process where Python raises
    in the middle of what their C++ sets up. Not for long: a second Ctrl-C, or `LONGEST_WAIT_S`,
    ends the process at once, which leaves no file in a bad state.
    """
    forget_ctrl_c()
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) in (
        signal.default_int_handler,
        _interrupt,
    ):
        signal.signal(signal.SIGINT, _interrupt)


def forget_ctrl_c() -> None:
    """Forget an earlier Ctrl-C: its command has ended."""
    global _came
    _came = False


def ctrl_c_came() -> bool:
    """Check whether Ctrl-C was pressed and no work was saved for it."""
    return _came


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _came, _first_s
    again, _came = _came, True
    if not again:
        _first_s = time.monotonic()
    if _is_importing(frame):
        waited_s = time.monotonic() - _first_s
        if (again and number == signal.SIGINT) or waited_s > LONGEST_WAIT_S:
            os.write(2, b"error: Interrupted.\n")
            os._exit(130)
        signal.signal(signal.SIGALRM, _interrupt)
        signal.setitimer(signal.ITIMER_REAL, _RETRY_S)
        return
    raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
