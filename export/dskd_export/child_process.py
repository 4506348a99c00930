"""Child processes in the same Python: their command lines, and their end."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

# Python puts the working directory first on the path of `-c` and `-m`. A folder there that is named like a package
# (`deploy --out triton` writes one) would be imported in the package's place. Python 3.10 has no `-P`.
_SAFE_PATH = "import sys; sys.path[:] = [folder for folder in sys.path if folder]\n"
_RUN_MODULE = "import runpy; runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"


def make_script_command(script: str, *arguments: str) -> list[str]:
    """Make the command that runs Python source; nothing is imported from the working directory."""
    return [sys.executable, "-c", _SAFE_PATH + script, *arguments]


def make_module_command(module: str, *arguments: str) -> list[str]:
    """Make the command that runs a module as `python -m` does; nothing is imported from the working directory."""
    return make_script_command(_RUN_MODULE, module, *arguments)


def stop_children() -> None:
    """Send SIGTERM to the child processes of this one; nothing happens where Linux does not list them."""
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for number in path.read_text(encoding="ascii").split():
                os.kill(int(number), signal.SIGTERM)
