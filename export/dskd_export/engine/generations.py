"""Find the installed TensorRT, and the adapter of its generation."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from dskd_export import codes
from dskd_export.engine.adapter import TensorRtAdapter
from dskd_export.engine.api import BackendName
from dskd_export.engine.rtx import TensorRtRtx
from dskd_export.engine.trt10 import TensorRt10
from dskd_export.engine.trt11 import TensorRt11
from dskd_export.engine.versions import (
    RTX_TARGETS,
    TENSORRT_10,
    TENSORRT_11,
    TENSORRT_RTX,
    Versions,
    format_targets,
    range_of,
    system_folders,
    versions_of,
)
from dskd_export.errors import EnvironmentProblem, UsageError


@dataclass(frozen=True)
class Installed:
    """An installed TensorRT; it may still fail to load.

    Attributes:
        folder: of the module.
        version: None: no metadata.
        on_path: Python finds it without help.
    """

    name: BackendName
    module: str
    folder: Path
    version: str | None
    on_path: bool


ADAPTERS: dict[Versions, type[TensorRtAdapter]] = {
    TENSORRT_10: TensorRt10,
    TENSORRT_11: TensorRt11,
    TENSORRT_RTX: TensorRtRtx,
}
MODULES: dict[BackendName, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


def find_installed(folders: Sequence[Path] | None = None) -> tuple[Installed, ...]:
    """Find every installed TensorRT without loading it: on Python's path first, then in the system's folders.

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
    """Read the version from metadata: loading TensorRT takes a second."""
    names = {module, module.replace("_", "-")}
    for distribution in importlib.metadata.distributions(path=[str(where)]):
        if distribution.metadata["Name"] in names:
            return distribution.version
    return None


def open_backend(
    name: BackendName | Literal["auto"] = "auto", folders: Sequence[Path] | None = None
) -> TensorRtAdapter:
    """Load TensorRT and return its adapter.

    Args:
        name: which of the two; `auto`: TensorRT where it is installed, else TensorRT-RTX.
        folders: as for `find_installed`.

    Raises:
        EnvironmentProblem: it is not installed, does not load, or its version is unsupported.
    """
    return backend_of(load(choose(name, folders)))


def choose(name: str = "auto", folders: Sequence[Path] | None = None) -> Installed:
    """Choose the TensorRT to use.

    Raises:
        UsageError: there is no backend of that name.
        EnvironmentProblem: it is not installed.
    """
    if name not in (*MODULES, "auto"):
        raise UsageError(f"There is no backend {name}.", f"Choose --backend auto, {' or '.join(MODULES)}.")
    found = [item for item in find_installed(folders) if name in (item.name, "auto")]
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
    """Compute capabilities that a backend builds for ahead of time; none: only for the GPU of this machine."""
    return RTX_TARGETS if name == "tensorrt-rtx" else ()


def builder_for(name: str, targets: Sequence[str]) -> BackendName:
    """Choose the backend: for the GPU of this machine, or for named compute capabilities.

    Raises:
        UsageError: the requested backend, or every one, does not build for these.
        EnvironmentProblem: it is not installed.
    """
    ahead: tuple[BackendName, ...] = tuple(backend for backend in MODULES if targets_of(backend))
    if not targets:
        return choose(name).name
    if name not in (*ahead, "auto"):
        raise UsageError(
            f"{name} builds only for the GPU of this machine.",
            f"Remove --compute-capability, or use --backend {' or '.join(ahead)}.",
        )
    chosen = choose(ahead[0] if name == "auto" else name).name
    if unknown := [target for target in targets if target not in targets_of(chosen)]:
        raise UsageError(
            f"{chosen} does not build for {', '.join(unknown)}.",
            f"Choose another: {format_targets(targets_of(chosen))}",
        )
    return chosen


def load(found: Installed) -> ModuleType:
    """Import a TensorRT.

    Raises:
        EnvironmentProblem: a library is missing, or it belongs to another Python.
    """
    try:
        if found.on_path or found.module in sys.modules:
            return importlib.import_module(found.module)
        return _load_from(found)
    except (ImportError, OSError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        library = re.search(r"lib[\w.+-]+\.so[\w.]*", said)
        hint = "Install all TensorRT packages in one version; check with: dskd-compress doctor"
        if library and library[0].startswith(("libcu", "libnvrtc", "libnvJitLink")):
            hint = (
                f"Install the CUDA runtime that has {library[0]}: pip install cuda-bindings, or CUDA's packages."
            )
        elif not found.on_path:
            hint = (
                "Create the environment with the system's Python: "
                "/usr/bin/python3 -m venv --system-site-packages .venv"
            )
        raise EnvironmentProblem(
            f"{found.module} in {found.folder} cannot be loaded: {said}.",
            hint,
            code=codes.TENSORRT if library is None else codes.code_of_library(library[0]),
        ) from error


def _load_from(found: Installed) -> ModuleType:
    """Import one package from a folder off the path, and nothing else of that folder."""
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


def backend_of(trt: ModuleType) -> TensorRtAdapter:
    """Return the adapter of a loaded module.

    Raises:
        EnvironmentProblem: its version is unsupported.
    """
    name, version = trt.__name__.rpartition(".")[2], str(trt.__version__)
    numbers = re.match(r"(\d+)\.(\d+)", version)
    served = None if numbers is None else versions_of(name, (int(numbers[1]), int(numbers[2])))
    if served is not None:
        return ADAPTERS[served](trt)
    since, before = range_of(name)
    raise EnvironmentProblem(
        f"{name} {version} is not supported.",
        f"Install {name} >={since},<{before}, or update dskd-compress.",
        code=codes.TENSORRT_MAJOR,
    )
