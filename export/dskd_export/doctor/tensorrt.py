"""Check which TensorRT is installed, and that it loads."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from dskd_export import codes
from dskd_export.doctor.finding import DoesNotImport, Finding, Level, make_finding, run_script
from dskd_export.doctor.packages import parse_version
from dskd_export.engine.versions import SUPPORTED, range_of, system_folders, versions_of
from dskd_export.runtime.shared_libraries import find_other_majors, list_pip_folders
from dskd_export.telemetry.cuda import Gpu, format_capability

IMPORT = """
import json
from pathlib import Path
from dskd_export.engine.generations import find_installed, load
found = []
for one in find_installed([Path(folder) for folder in %r]):
    version = message = None
    try:
        version = str(getattr(load(one), "__version__", ""))
    except Exception as error:
        cause = error.__cause__ or error
        message = f"{type(cause).__name__}: {cause}"
    found.append([one.module, version, str(one.folder), message])
print(json.dumps(found))
"""
"""As `build` loads it: what is on Python's path, else what the system has for this Python."""


def check_tensorrt(required: bool, gpus: Sequence[Gpu], root: Path) -> Iterator[Finding]:
    """Check what is installed, and what keeps it from running.

    Args:
        required: engines are built here: a problem is an error.
        gpus: devices that the driver lists.
        root: of the file system.
    """
    level: Level = "error" if required else "warning"
    try:
        answers = run_script(IMPORT % [str(folder) for folder in system_folders(root)])
    except DoesNotImport as error:
        yield make_finding(codes.TENSORRT, level, f"TensorRT cannot be imported: {error}")
        return
    for module, version, folder, message in answers:
        yield _judge(module, version, folder, message, level, gpus)
    if any(name == "tensorrt" for name, *_ in answers):
        return
    system = find_system_folder(root)
    if system is not None:
        yield _off_path(system, level)
    elif not answers:
        what = "TensorRT is not installed"
        if required:
            yield make_finding(codes.TENSORRT, "error", what)
        else:
            yield make_finding(codes.TENSORRT, "ok", f"{what}; it is optional")


def _judge(
    module: str, version: str | None, folder: str, message: str | None, level: Level, gpus: Sequence[Gpu]
) -> Finding:
    where = f"{module} in {folder}"
    if message is not None:
        return _explain_import(where, message, level)
    found = parse_version(version or "")
    served = versions_of(module, found) if found else next(one for one in SUPPORTED if one.module == module)
    if served is None:
        since, before = range_of(module)
        what = f"{where} is version {version}; supported: >={since},<{before}"
        return make_finding(codes.TENSORRT_MAJOR, level, what)
    capability = gpus[0].compute_capability if gpus else None
    if capability is not None and not served.runs_on(capability):
        short = format_capability(capability)
        what = f"{where}, {version}, does not run on {gpus[0].name}: compute capability {short}"
        return make_finding(codes.COMPUTE_CAPABILITY, level, what)
    what = f"{module} {version or 'of an unknown version'} in {folder}"
    return make_finding(codes.TENSORRT, "ok", what, found=[module])


def _explain_import(where: str, message: str, level: Level) -> Finding:
    what = f"{where} cannot be imported: {message}"
    match = re.search(r"lib[\w+-]+\.so(?:\.\d+)*", message)
    if match is None:
        return make_finding(codes.TENSORRT, level, what)
    library = match.group()
    others = find_other_majors(re.sub(r"(\.so\.\d+).*", r"\1", library), list_pip_folders())
    code = codes.code_of_library(library)
    if others:
        what += f"; {', '.join(others)} is installed"
        code = codes.TENSORRT_MAJOR if code is codes.LIBNVINFER else code
    return make_finding(code, level, what)


def find_system_folder(root: Path) -> Path | None:
    """Find TensorRT of any Python of the system; None: there is none."""
    return next(iter(sorted(root.glob("usr/lib/python3*/dist-packages/tensorrt"))), None)


def _off_path(folder: Path, level: Level) -> Finding:
    what = f"the system's TensorRT is in {folder}, off the path of this Python ({sys.prefix})"
    match = re.search(r"python(3\.\d+)/", folder.as_posix())
    own = f"3.{sys.version_info.minor}"
    cure = None
    if match is not None and match.group(1) != own:
        cure = (
            f"Create the environment with Python {match.group(1)} instead of {own}: "
            f"python{match.group(1)} -m venv --system-site-packages .venv"
        )
    return make_finding(codes.TENSORRT_OFF_PATH, level, what, cure)
