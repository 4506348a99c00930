"""Which TensorRT is installed here, and the adapter that fits it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from dskd_export import codes
from dskd_export.engine.api import Backend
from dskd_export.engine.versions import (
    TENSORRT_10,
    TENSORRT_11,
    TENSORRT_RTX,
    Versions,
    range_of,
    system_folders,
    versions_of,
)
from dskd_export.errors import EnvironmentProblem, UsageError

BackendName = Literal["tensorrt", "tensorrt-rtx"]


@dataclass(frozen=True)
class Installed:
    """A TensorRT that is here; whether it loads shows when it is loaded.

    Attributes:
        folder: of the module.
        version: None: no metadata tells.
        on_path: whether Python finds it by itself.
    """

    name: BackendName
    module: str
    folder: Path
    version: str | None
    on_path: bool


def _trt10(trt: Any) -> Backend:
    from dskd_export.engine.trt10 import TensorRt10

    return TensorRt10(trt)


def _trt11(trt: Any) -> Backend:
    from dskd_export.engine.trt11 import TensorRt11

    return TensorRt11(trt)


def _rtx(trt: Any) -> Backend:
    from dskd_export.engine.rtx import TensorRtRtx

    return TensorRtRtx(trt)


ADAPTERS: dict[Versions, Callable[[Any], Backend]] = {TENSORRT_10: _trt10, TENSORRT_11: _trt11, TENSORRT_RTX: _rtx}
MODULES: dict[BackendName, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


def installed(folders: Sequence[Path] | None = None) -> tuple[Installed, ...]:
    """Every TensorRT that is here, without loading it: what Python finds first, then what the system has.

    Args:
        folders: of the system's packages; None: those of this Python.
    """
    found = []
    for name, module in MODULES.items():
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.origin is not None:
            folder = Path(spec.origin).parent
            found.append(Installed(name, module, folder, _version(module, folder.parent), on_path=True))
            continue
        for where in system_folders() if folders is None else folders:
            if (where / module / "__init__.py").is_file():
                found.append(Installed(name, module, where / module, _version(module, where), on_path=False))
                break
    return tuple(found)


def _version(module: str, where: Path) -> str | None:
    """From the metadata beside a module: loading TensorRT to ask it takes a second."""
    names = {module, module.replace("_", "-")}
    for distribution in importlib.metadata.distributions(path=[str(where)]):
        if distribution.metadata["Name"] in names:
            return distribution.version
    return None


def open_backend(name: BackendName | Literal["auto"] = "auto", folders: Sequence[Path] | None = None) -> Backend:
    """Load TensorRT and give the adapter that fits it.

    Args:
        name: which of the two; `auto`: TensorRT where it is installed, else TensorRT-RTX.
        folders: as `installed`.

    Raises:
        EnvironmentProblem: it is not installed, does not load, or is of a version that no adapter serves.
    """
    return backend_of(load(choose(name, folders)))


def choose(name: str = "auto", folders: Sequence[Path] | None = None) -> Installed:
    """The TensorRT to use.

    Raises:
        UsageError: there is no backend of that name.
        EnvironmentProblem: it is not installed.
    """
    if name not in (*MODULES, "auto"):
        raise UsageError(f"There is no backend {name}.", f"Choose auto, {' or '.join(MODULES)}.")
    found = [item for item in installed(folders) if name in (item.name, "auto")]
    if found:
        return found[0]
    if name == "tensorrt-rtx":
        raise EnvironmentProblem(
            "TensorRT-RTX is not installed.", "Install it with: pip install 'dskd-compress[tensorrt-rtx]'"
        )
    if Path("/etc/nv_tegra_release").exists():
        raise EnvironmentProblem(
            f"TensorRT is not installed for Python 3.{sys.version_info.minor}.",
            "On a Jetson it comes with JetPack, for the system's Python: sudo apt install python3-libnvinfer, and "
            "make the environment with: /usr/bin/python3 -m venv --system-site-packages .venv",
            code=codes.TENSORRT_OFF_PATH,
        )
    raise EnvironmentProblem(
        "TensorRT is not installed.",
        "Install it with: pip install 'dskd-compress[tensorrt]' (RTX GPUs: 'dskd-compress[tensorrt-rtx]')",
        code=codes.TENSORRT,
    )


def targets_of(name: BackendName) -> tuple[str, ...]:
    """Compute capabilities that a backend builds for ahead of time; none: only for the GPU that is here."""
    from dskd_export.engine.rtx import TensorRtRtx

    return TensorRtRtx.targets if name == "tensorrt-rtx" else ()


def builder_for(name: str, targets: Sequence[str]) -> BackendName:
    """The backend to build with, here for the GPU or ahead of time for targets.

    Raises:
        UsageError: no backend builds for these targets, or not the one that was asked for.
        EnvironmentProblem: it is not installed.
    """
    ahead: tuple[BackendName, ...] = tuple(backend for backend in MODULES if targets_of(backend))
    if not targets:
        return choose(name).name
    if name not in (*ahead, "auto"):
        raise UsageError(
            f"{name} builds for the GPU that is here, not for a --target.",
            f"Build on the device, or ahead of time with --backend {' or '.join(ahead)}.",
        )
    chosen = choose(ahead[0] if name == "auto" else name).name
    if unknown := [target for target in targets if target not in targets_of(chosen)]:
        raise UsageError(
            f"{chosen} does not build for {', '.join(unknown)}.", f"Choose from: {', '.join(targets_of(chosen))}."
        )
    return chosen


def load(found: Installed) -> ModuleType:
    """Import a TensorRT.

    Raises:
        EnvironmentProblem: a library that it needs is missing, or it is of another Python.
    """
    try:
        if found.on_path or found.module in sys.modules:
            return importlib.import_module(found.module)
        return _load_from(found)
    except (ImportError, OSError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        library = re.search(r"lib[\w.+-]+\.so[\w.]*", said)
        hint = "Install the same version of all of TensorRT's packages, and look at: dskd-compress doctor"
        if library and library[0].startswith(("libcu", "libnvrtc", "libnvJitLink")):
            hint = (
                f"Install the CUDA runtime that has {library[0]}: pip install cuda-bindings, or CUDA's packages."
            )
        elif not found.on_path:
            hint = (
                "Make an environment of the system's Python that sees it: "
                "/usr/bin/python3 -m venv --system-site-packages .venv"
            )
        raise EnvironmentProblem(
            f"{found.module} in {found.folder} does not load: {said}.",
            hint,
            code=codes.TENSORRT if library is None else codes.code_of_library(library[0]),
        ) from error


def _load_from(found: Installed) -> ModuleType:
    """Import one package from a folder that is not on the path, and nothing else of that folder."""
    spec = importlib.util.spec_from_file_location(
        found.module, found.folder / "__init__.py", submodule_search_locations=[str(found.folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[found.module] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[found.module]
        raise
    return module


def backend_of(trt: ModuleType) -> Backend:
    """The adapter for a module that is loaded.

    Raises:
        EnvironmentProblem: no adapter serves its version.
    """
    name, version = trt.__name__.rpartition(".")[2], str(trt.__version__)
    numbers = re.match(r"(\d+)\.(\d+)", version)
    served = None if numbers is None else versions_of(name, (int(numbers[1]), int(numbers[2])))
    if served is not None:
        return ADAPTERS[served](trt)
    since, before = range_of(name)
    raise EnvironmentProblem(
        f"{name} {version} is not a version that dskd-compress knows.",
        f"Install one from {since} on and before {before}, or update dskd-compress.",
        code=codes.TENSORRT_MAJOR,
    )
