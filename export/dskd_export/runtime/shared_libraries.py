"""Find the libraries that a library needs and that cannot be loaded here.

Files are searched where pip installs them; the rest goes to the system's loader, in a child process that a broken
library may crash.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dskd_export.child_process import make_script_command
from dskd_export.runtime.elf import NotElf, read_needed

_LOAD = """
import ctypes, json, sys
said = {}
for name in sys.argv[1:]:
    try:
        ctypes.CDLL(name)
    except OSError as error:
        said[name] = str(error)
    print(json.dumps(said), flush=True)
"""
_TIMEOUT_S = 120
# Major versions that are searched for next to the missing one.
_MAJORS = range(8, 16)


def list_pip_folders() -> tuple[Path, ...]:
    """List the folders of libraries in NVIDIA's wheels: `nvidia/*/lib` and `tensorrt_libs`."""
    found = []
    for package in ("nvidia", "tensorrt_libs", "tensorrt_rtx"):
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations if spec is not None else None) or ():
            found += [Path(place), *sorted(path for path in Path(place).glob("*/lib") if path.is_dir())]
    return tuple(found)


def find_missing_libraries(library: Path, folders: Sequence[Path]) -> Mapping[str, str]:
    """Find what a library needs, directly or through others, and cannot be loaded here.

    Args:
        library: its file.
        folders: searched before the system's loader.

    Returns:
        Name -> the loader's message. A file that is no library counts as one that cannot be loaded.
    """
    for_loader: dict[str, None] = {}
    seen: set[str] = set()
    queue = [library]
    while queue:
        path = queue.pop()
        try:
            needed = read_needed(path)
        except (NotElf, OSError) as error:
            return {path.name: str(error)}
        for name in needed:
            if name in seen:
                continue
            seen.add(name)
            file = find_in((path.parent, *folders), name)
            if file is None:
                for_loader[name] = None
            else:
                queue.append(file)
    return find_load_errors(tuple(for_loader))


def find_in(folders: Iterable[Path], name: str) -> Path | None:
    """Find a file in the first folder that has it."""
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


@functools.cache
def find_load_errors(names: tuple[str, ...]) -> Mapping[str, str]:
    """Try libraries with the system's loader: name -> message of those that fail."""
    if not names:
        return {}
    command = make_script_command(_LOAD, *names)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        lines, ended = done.stdout.splitlines(), f"the process that loaded it exited with {done.returncode}"
    except subprocess.TimeoutExpired as error:
        raw = error.stdout or b""
        lines = (raw.decode() if isinstance(raw, bytes) else raw).splitlines()
        ended = f"it was not loaded within {_TIMEOUT_S} s"
    said: dict[str, str] = json.loads(lines[-1]) if lines else {}
    if len(lines) < len(names):  # one line a library: the next one took the process down
        said[names[len(lines)]] = ended
    return said


def find_other_majors(name: str, folders: Sequence[Path]) -> list[str]:
    """List other major versions of a library that can be loaded: `libnvinfer.so.11`."""
    match = re.fullmatch(r"(.+\.so)\.(\d+)", name)
    if match is None:
        return []
    names = [f"{match[1]}.{major}" for major in _MAJORS if major != int(match[2])]
    there = [other for other in names if find_in(folders, other) is not None]
    failed = find_load_errors(tuple(names))
    return sorted({*there, *(other for other in names if other not in failed)})
