"""Which of the libraries that a library needs are not to be had here.

The files are looked for where pip puts them; what is not there is given to the system's loader, in a
process of its own, which a broken library may take down.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dskd_export.runtime.elf import NotElf, read_dynamic

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
# Beside the version that is missing these are looked for, to say that another one is there.
_MAJORS = range(8, 16)


def pip_folders() -> tuple[Path, ...]:
    """Where NVIDIA's wheels put their libraries: `nvidia/*/lib` and `tensorrt_libs`."""
    found = []
    for package in ("nvidia", "tensorrt_libs", "tensorrt_rtx"):
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations if spec is not None else None) or ():
            found += [Path(place), *sorted(path for path in Path(place).glob("*/lib") if path.is_dir())]
    return tuple(found)


def missing_libraries(library: Path, folders: Sequence[Path]) -> Mapping[str, str]:
    """What a library needs, itself or through others, and cannot be loaded here.

    Args:
        library: the file.
        folders: where its needs are looked for, before the system's loader is asked.

    Returns:
        Name -> what the loader says, without those that are there. A file that is no library counts as
        one that cannot be loaded.
    """
    asked: dict[str, None] = {}
    seen: set[str] = set()
    queue = [library]
    while queue:
        path = queue.pop()
        try:
            needed = read_dynamic(path).needed
        except (NotElf, OSError) as error:
            return {path.name: str(error)}
        for name in needed:
            if name in seen:
                continue
            seen.add(name)
            file = find_in((path.parent, *folders), name)
            if file is None:
                asked[name] = None
            else:
                queue.append(file)
    return load_errors(tuple(asked))


def find_in(folders: Iterable[Path], name: str) -> Path | None:
    """The file of that name in the first folder that has one."""
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


@functools.cache
def load_errors(names: tuple[str, ...]) -> Mapping[str, str]:
    """Libraries that the system's loader does not load -> what it says."""
    if not names:
        return {}
    command = [sys.executable, "-c", _LOAD, *names]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        lines, ended = done.stdout.splitlines(), f"the process that loaded it ended with {done.returncode}"
    except subprocess.TimeoutExpired as error:
        raw = error.stdout or b""
        lines = (raw.decode() if isinstance(raw, bytes) else raw).splitlines()
        ended = f"it was not loaded within {_TIMEOUT_S} s"
    said: dict[str, str] = json.loads(lines[-1]) if lines else {}
    if len(lines) < len(names):  # one line a library: the next one took the process down
        said[names[len(lines)]] = ended
    return said


def other_majors(name: str, folders: Sequence[Path]) -> list[str]:
    """Versions of a library that are here in place of the one that is not: `libnvinfer.so.11`."""
    match = re.fullmatch(r"(.+\.so)\.(\d+)", name)
    if match is None:
        return []
    names = [f"{match[1]}.{major}" for major in _MAJORS if major != int(match[2])]
    there = [other for other in names if find_in(folders, other) is not None]
    failed = load_errors(tuple(names))
    return sorted({*there, *(other for other in names if other not in failed)})
