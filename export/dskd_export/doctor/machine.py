"""Check disk, memory and the folder of the results."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dskd_export import codes
from dskd_export.doctor.finding import Finding, Purpose, make_finding
from dskd_export.telemetry.host import available_memory

_GIB = 1024**3


def check_disk(folder: Path) -> Iterator[Finding]:
    """Check that the disk has room for a run."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        yield make_finding(codes.DISK, "error", f"{folder}: {error.strerror}")
        return
    what = f"{free / _GIB:.1f} GiB free in {folder}"
    if free < 0.1 * _GIB:
        yield make_finding(codes.DISK, "error", what)
    elif free < 2 * _GIB:
        yield make_finding(codes.DISK, "warning", what)
    else:
        yield make_finding(codes.DISK, "ok", what)


def check_memory(purpose: Purpose | None) -> Iterator[Finding]:
    """Check that there is enough memory for a run."""
    free = available_memory()
    if free is None:
        yield make_finding(codes.MEMORY, "warning", "free memory is unknown", "Watch it during the first run.")
        return
    what = f"{free / _GIB:.1f} GiB of memory available"
    least = 0.5 if purpose == "benchmark" else 2.0
    if free < least * _GIB:
        cure = "Close other programs, or lower train.batch_size and data.workers."
        yield make_finding(codes.MEMORY, "warning", what, cure)
    else:
        yield make_finding(codes.MEMORY, "ok", what)


def check_folder(folder: Path) -> Iterator[Finding]:
    """Check that the folder is writable."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        yield make_finding(codes.WRITABLE, "error", f"{folder} is not writable: {error.strerror}")
    else:
        yield make_finding(codes.WRITABLE, "ok", f"{folder} is writable")
