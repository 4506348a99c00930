"""Import something in a process of its own, which a broken library may take down."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

TIMEOUT_S = 120


class DoesNotImport(Exception):
    """What the process said last, or how it ended."""


def answer_of(script: str) -> Any:
    """The JSON that a script prints in its last line.

    Raises:
        DoesNotImport: it failed, was killed, or did not end in time.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DoesNotImport(f"it does not finish its import within {TIMEOUT_S} s") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise DoesNotImport(said[-1])
    return json.loads(done.stdout.strip().splitlines()[-1])
