"""TensorRT: which generation, where, and does it load?"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dskd_export import codes
from dskd_export.doctor.child import DoesNotImport, answer_of
from dskd_export.doctor.finding import Finding, Level, finding
from dskd_export.doctor.packages import numbers
from dskd_export.elf import Capability
from dskd_export.runtime.shared_libraries import other_majors, pip_folders
from dskd_export.telemetry.cuda import Gpu

IMPORT = """
import importlib, importlib.util, json
found = []
for name in %r:
    spec = importlib.util.find_spec(name)
    if spec is None:
        continue
    said = version = None
    try:
        version = str(getattr(importlib.import_module(name), "__version__", ""))
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    found.append([name, version, spec.origin, said])
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Module:
    """A Python module of TensorRT.

    Attributes:
        name: of the module.
        since: the oldest version that is used.
        before: the first that is not.
        capabilities: compute capabilities that it runs on; None: 7.5 and all newer ones.
    """

    name: str
    since: tuple[int, ...]
    before: tuple[int, ...]
    capabilities: frozenset[Capability] | None = None


MODULES = (
    Module("tensorrt", (10, 3), (12,)),
    Module("tensorrt_rtx", (1,), (2,), frozenset({(7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1)})),
)
_OLDEST_CAPABILITY = (7, 5)


def look_at_tensorrt(required: bool, gpus: Sequence[Gpu], root: Path) -> Iterator[Finding]:
    """What is installed, and what is in its way.

    Args:
        required: engines are to be built here: what is wrong is an error.
        gpus: the devices that the driver tells of.
        root: of the file system.
    """
    level: Level = "error" if required else "warning"
    try:
        answers = answer_of(IMPORT % ([module.name for module in MODULES],))
    except DoesNotImport as error:
        yield finding(codes.TENSORRT, level, f"TensorRT does not import: {error}")
        return
    modules = {module.name: module for module in MODULES}
    for name, version, origin, said in answers:
        yield _judged(modules[name], version, origin, said, level, gpus)
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
    module: Module, version: str | None, origin: Any, said: str | None, level: Level, gpus: Sequence[Gpu]
) -> Finding:
    where = f"{module.name} in {Path(str(origin)).parent}"
    if said is not None:
        return _not_loading(where, said, level)
    found = numbers(version or "")
    if found and not module.since <= found < module.before:
        oldest, newest = ".".join(map(str, module.since)), module.before[0] - 1
        what = f"{where} is version {version}; versions {oldest} to {newest} are used"
        return finding(codes.TENSORRT_MAJOR, level, what)
    capability = gpus[0].compute_capability if gpus else None
    if capability is not None and not _runs_on(module, capability):
        what = f"{where}, {version}, does not run on {gpus[0].name}: compute capability {_dotted(capability)}"
        return finding(codes.COMPUTE_CAPABILITY, level, what)
    return finding(
        codes.TENSORRT, "ok", f"{module.name} {version or 'of an unknown version'} in {Path(str(origin)).parent}"
    )


def _runs_on(module: Module, capability: Capability) -> bool:
    if module.capabilities is not None:
        return capability in module.capabilities
    return capability >= _OLDEST_CAPABILITY


def _not_loading(where: str, said: str, level: Level) -> Finding:
    what = f"{where} does not import: {said}"
    match = re.search(r"lib[\w+-]+\.so(?:\.\d+)*", said)
    if match is None:
        return finding(codes.TENSORRT, level, what)
    library = match.group()
    others = other_majors(re.sub(r"(\.so\.\d+).*", r"\1", library), pip_folders())
    code = codes.code_of_library(library)
    if others:
        what += f"; {', '.join(others)} is here"
        code = codes.TENSORRT_MAJOR if code is codes.LIBNVINFER else code
    return finding(code, level, what)


def system_folder(root: Path) -> Path | None:
    """Where the system's Python has TensorRT, as JetPack and NVIDIA's Debian packages put it; None: nowhere."""
    return next(iter(sorted(root.glob("usr/lib/python3*/dist-packages/tensorrt"))), None)


def _off_path(folder: Path, level: Level) -> Finding:
    what = f"the system's TensorRT is in {folder}, which this Python ({sys.prefix}) does not look into"
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
