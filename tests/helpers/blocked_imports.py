"""Python processes in which some modules cannot be imported, as if they were not installed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

_BLOCKER = """\
import sys


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)


sys.meta_path.insert(0, Blocker())
"""


def block_imports(folder: Path, *names: str, path: Iterable[str] = sys.path) -> dict[str, str]:
    """Write a sitecustomize.py that blocks the modules.

    Args:
        folder: where it will lie; made here.
        names: top-level modules.
        path: where the process finds the others.

    Returns:
        The environment of such a process.
    """
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_BLOCKER.format(names=names), encoding="utf-8")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *path])}
