"""Standard output that never stops the work: what it cannot encode is escaped, what it cannot take is dropped.

A reader that leaves, as `head` does, ends no training: `LostOutput` keeps the reason until the work is done.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class LostOutput:
    """Record of text that stdout did not take."""

    error: OSError | None = None  # why some of it is lost; None: it is complete


class _GuardedFile(io.FileIO):
    """A descriptor that takes everything, and remembers why it dropped some of it."""

    def __init__(self, descriptor: int, lost: LostOutput) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._lost = lost

    def write(self, data: Any) -> int:
        if self._lost.error is None:
            try:
                return super().write(data)
            except OSError as error:
                self._lost.error = error
        return len(data)


@contextmanager
def guard_output() -> Iterator[LostOutput]:
    """Let `sys.stdout` and `sys.stderr` take any text for as long as the body runs.

    Streams that were replaced, as a test does, stay as they are.

    Yields:
        The record for stdout; text lost on stderr is not recorded.
    """
    _open_missing()
    lost = LostOutput()
    before = sys.stdout, sys.stderr
    if sys.stdout is sys.__stdout__:
        sys.stdout = _stream(sys.stdout, 1, lost)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _stream(sys.stderr, 2, LostOutput())
    try:
        yield lost
    finally:
        sys.stdout, sys.stderr = before


def _open_missing() -> None:
    """Open what is closed of stdin, stdout and stderr: another file would take its number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one


def _stream(given: TextIO | None, descriptor: int, lost: LostOutput) -> TextIO:
    if given is not None:
        given.flush()
    raw = _GuardedFile(descriptor, lost)
    terminal = raw.isatty()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=None if given is None else given.encoding,
        errors="backslashreplace",
        line_buffering=terminal or descriptor == 2,
    )
