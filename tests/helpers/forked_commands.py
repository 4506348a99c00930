"""A program that runs command lines one after the other, each in a child forked from one process.

Importing torch and timm takes seconds: the first process does it once for all children.
Usage: forked_commands.py '[["torch"], {"a name": ["report", "run"], "another": ["-c", "python code"]}]'
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import shutil
import socket
import sys
from pathlib import Path

MARK = "127.99.0.1"
"""An address of loopback to which nobody else connects; the port is the number of the command, from 1."""
OUTPUT = "output"
"""The folder of what the commands print, a file each named by its number."""
FOUND = "found.json"


def run_child(arguments: list[str], output: Path) -> None:
    """Run one command line to the end of this process, which skips only that the interpreter frees its objects."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    code = 0
    if arguments[0] == "-c":
        exec(arguments[1], {})
    else:
        from dskd_compress.__main__ import start

        sys.argv[1:] = arguments
        code = start()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def empty_home() -> list[str]:
    """Remove all that is in the home folder; returns the names of its files."""
    files = sorted(
        path.relative_to(Path.home()).as_posix() for path in Path.home().rglob("*") if not path.is_dir()
    )
    for path in Path.home().iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return files


def run_all(modules: list[str], commands: dict[str, list[str]]) -> None:
    """Write exit code and files left at home of each command, and under `imports` the files of the imports."""
    Path(OUTPUT).mkdir()
    for module in modules:
        importlib.import_module(module)
    gc.freeze()  # a collection in a child would copy all of this memory
    found = {"imports": (0, empty_home())}
    for number, (name, arguments) in enumerate(commands.items(), start=1):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as marker:
            marker.connect((MARK, number))
        child = os.fork()
        if not child:
            run_child(arguments, Path(OUTPUT, str(number)))
        found[name] = (os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), empty_home())
    Path(FOUND).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    run_all(*json.loads(sys.argv[1]))
