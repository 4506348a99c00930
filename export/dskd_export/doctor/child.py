"""Run a script in a child process, which a broken library may crash."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

TIMEOUT_S = 120


class DoesNotImport(Exception):
    """The last line of the process, or how it ended."""


def run_script(script: str) -> Any:
    """Run a script and return the JSON in its last line.

    Raises:
        DoesNotImport: it failed, was killed, or ran too long.
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
        raise DoesNotImport(f"the import takes longer than {TIMEOUT_S} s") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise DoesNotImport(said[-1])
    return json.loads(done.stdout.strip().splitlines()[-1])
