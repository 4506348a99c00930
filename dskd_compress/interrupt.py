"""Remember Ctrl-C and SIGTERM: a library may turn the KeyboardInterrupt into another error."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

LONGEST_WAIT_S = 2.0
_RETRY_S = 0.05

RESUMABLE = ("run", "train", "distill", "tune", "compare", "benchmark", "build")
"""Commands that continue where they stopped when they are started again."""

_came = False
_first_s = 0.0


def make_resume_command(arguments: Sequence[str], run: Path | None = None) -> str | None:
    """Make the command that resumes an interrupted one; None where there is nothing to resume.

    Args:
        arguments: the interrupted command line, without the program's name.
        run: folder that holds the saved training and its recipe; None: the same command line is needed.
    """
    words = [word for word in arguments if word != "--debug"]
    command = next((word for word in words if not word.startswith("-")), None)
    if command not in RESUMABLE:
        return None
    if run is None:
        return shlex.join(["dskd-compress", *words])
    return shlex.join(["dskd-compress", command, str(run), *_last_stage(words)])


def _last_stage(words: Sequence[str]) -> list[str]:
    """The option of `run` that is not kept in the recipe: where it ends."""
    for index, word in enumerate(words):
        if word == "--to" or word.startswith("--to="):
            return list(words[index : index + (2 if word == "--to" else 1)])
    return []


def describe_interrupt(resume: str | None) -> str:
    """Describe an interrupt in one line, with the command that resumes the work."""
    return "Interrupted." if resume is None else f"Interrupted. Resume with: {resume}"


def watch_for_ctrl_c() -> None:
    """Remember Ctrl-C or SIGTERM from now on, and raise KeyboardInterrupt for it. Call it before long imports.

    Within an import the exception waits for its end: torch and others abort the process where Python raises
    in the middle of what their C++ sets up. Not for long: a second Ctrl-C, or `LONGEST_WAIT_S`,
    ends the process at once, which leaves no file in a bad state. Signals that were ignored, or handled by
    another library, stay so.
    """
    forget_ctrl_c()
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, _interrupt):
        signal.signal(signal.SIGINT, _interrupt)
    # torchrun sends SIGTERM to those that wait in a collective for a lost process: only the default ends them.
    if "RANK" not in os.environ and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _interrupt)


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
            line = describe_interrupt(make_resume_command(sys.argv[1:]))
            os.write(2, f"{line}\n".encode(errors="backslashreplace"))
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
