"""TensorRT: which generation, where, and does it load?"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dskd_export import codes
from dskd_export.doctor.child import DoesNotImport, answer_of
from dskd_export.doctor.finding import Finding, Level, finding
from dskd_export.doctor.packages import numbers
from dskd_export.engine.versions import SUPPORTED, Capability, range_of, system_folders, versions_of
from dskd_export.runtime.shared_libraries import find_other_majors, list_pip_folders
from dskd_export.telemetry.cuda import Gpu

IMPORT = """
import importlib.util, json, os, sys
found = []
for name in %r:
    spec = importlib.util.find_spec(name)
    for folder in %r:
        file = os.path.join(folder, name, "__init__.py")
        if spec is None and os.path.isfile(file):
            spec = importlib.util.spec_from_file_location(
                name, file, submodule_search_locations=[os.path.dirname(file)]
            )
    if spec is None:
        continue
    said = version = None
    try:
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        version = str(getattr(module, "__version__", ""))
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    found.append([name, version, spec.origin, said])
print(json.dumps(found))
"""
"""As `build` loads it: what Python finds by itself, else what the system has for this Python."""


def look_at_tensorrt(required: bool, gpus: Sequence[Gpu], root: Path) -> Iterator[Finding]:
    """What is installed, and what is in its way.

    Args:
        required: engines are to be built here: what is wrong is an error.
        gpus: the devices that the driver tells of.
        root: of the file system.
    """
    level: Level = "error" if required else "warning"
    try:
        names = list(dict.fromkeys(one.module for one in SUPPORTED))
        answers = answer_of(IMPORT % (names, [str(folder) for folder in system_folders(root)]))
    except DoesNotImport as error:
        yield finding(codes.TENSORRT, level, f"TensorRT does not import: {error}")
        return
    for name, version, origin, said in answers:
        yield _judged(name, version, origin, said, level, gpus)
    if any(name == "tensorrt" for name, *_ in answers):
        return
    system = system_folder(root)
    if system is not None:
        yield _off_path(system, level)
    elif not answers:
        what = "TensorRT is not installed"
        if required:
            yield finding(codes.TENSORRT, "error", what)
        else:
            yield finding(codes.TENSORRT, "ok", f"{what}; nothing needs it, engines are optional")


def _judged(
    module: str, version: str | None, origin: Any, said: str | None, level: Level, gpus: Sequence[Gpu]
) -> Finding:
    where = f"{module} in {Path(str(origin)).parent}"
    if said is not None:
        return _not_loading(where, said, level)
    found = numbers(version or "")
    served = versions_of(module, found) if found else next(one for one in SUPPORTED if one.module == module)
    if served is None:
        since, before = range_of(module)
        what = f"{where} is version {version}; versions from {since} on and before {before} are used"
        return finding(codes.TENSORRT_MAJOR, level, what)
    capability = gpus[0].compute_capability if gpus else None
    if capability is not None and not served.runs_on(capability):
        what = f"{where}, {version}, does not run on {gpus[0].name}: compute capability {_dotted(capability)}"
        return finding(codes.COMPUTE_CAPABILITY, level, what)
    return finding(
        codes.TENSORRT, "ok", f"{module} {version or 'of an unknown version'} in {Path(str(origin)).parent}"
    )


def _not_loading(where: str, said: str, level: Level) -> Finding:
    what = f"{where} does not import: {said}"
    match = re.search(r"lib[\w+-]+\.so(?:\.\d+)*", said)
    if match is None:
        return finding(codes.TENSORRT, level, what)
    library = match.group()
    others = find_other_majors(re.sub(r"(\.so\.\d+).*", r"\1", library), list_pip_folders())
    code = codes.code_of_library(library)
    if others:
        what += f"; {', '.join(others)} is here"
        code = codes.TENSORRT_MAJOR if code is codes.LIBNVINFER else code
    return finding(code, level, what)


def system_folder(root: Path) -> Path | None:
    """Where a Python of the system, this or another one, has TensorRT; None: nowhere."""
    return next(iter(sorted(root.glob("usr/lib/python3*/dist-packages/tensorrt"))), None)


def _off_path(folder: Path, level: Level) -> Finding:
    what = f"the system's TensorRT is in {folder}, which this Python ({sys.prefix}) cannot load"
    match = re.search(r"python(3\.\d+)/", folder.as_posix())
    own = f"3.{sys.version_info.minor}"
    cure = None
    if match is not None and match.group(1) != own:
        cure = (
            f"It belongs to Python {match.group(1)}, this is {own}: make the environment with "
            f"python{match.group(1)} -m venv --system-site-packages .venv"
        )
    return finding(codes.TENSORRT_OFF_PATH, level, what, cure)


def _dotted(capability: Capability) -> str:
    return ".".join(map(str, capability))
