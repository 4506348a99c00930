"""Ctrl-C, remembered: a library may turn the KeyboardInterrupt into another error."""

from __future__ import annotations

import signal
import threading
from types import FrameType

_came = False


def watch_for_ctrl_c() -> None:
    """Remember a Ctrl-C from now on; it raises KeyboardInterrupt as ever. Call it before long imports."""
    forget_ctrl_c()
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) in (
        signal.default_int_handler,
        _interrupt,
    ):
        signal.signal(signal.SIGINT, _interrupt)


def forget_ctrl_c() -> None:
    """Begin anew: the command is over."""
    global _came
    _came = False


def ctrl_c_came() -> bool:
    """Whether Ctrl-C was pressed and nothing has saved the work for it."""
    return _came


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    global _came
    _came = True
    raise KeyboardInterrupt
