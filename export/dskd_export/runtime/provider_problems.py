"""Why one of ONNX Runtime's providers cannot run here: told before a session is made.

A session whose provider cannot be loaded is made all the same, on the CPU, with a line in the log.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dskd_export import codes
from dskd_export.codes import Code
from dskd_export.errors import EnvironmentProblem
from dskd_export.runtime.elf import Capability, Kernels, NotElf, read_kernels
from dskd_export.runtime.providers import CUDA, Provider
from dskd_export.runtime.shared_libraries import missing_libraries, other_majors, pip_folders
from dskd_export.telemetry.cuda import DRIVER, Gpu

# Compiled code of one Tegra runs on that one only; elsewhere it runs on all later ones of its major version.
# CUDA C++ Programming Guide, "Binary Compatibility"; developer.nvidia.com/cuda-gpus.
_TEGRA: frozenset[Capability] = frozenset({(5, 3), (6, 2), (7, 2), (8, 7), (10, 1), (11, 0)})


@dataclass(frozen=True)
class Build:
    """An ONNX Runtime as it is installed.

    Attributes:
        version: its own.
        providers: ONNX Runtime's names of those that it was built with.
        folder: where the libraries of its providers lie.
    """

    version: str
    providers: tuple[str, ...]
    folder: Path


@dataclass(frozen=True)
class Problem:
    """Something that is in the way: which code, what was seen, and what to do if the code does not say it."""

    code: Code
    what: str
    cure: str | None = None

    def error(self, before: str = "", after: str = "") -> EnvironmentProblem:
        """The same as an error; `before` and `after` make a sentence of it."""
        return EnvironmentProblem(f"{before}{self.what}{after}.", self.cure, code=self.code)


def problems_of(
    provider: Provider, build: Build, gpus: Sequence[Gpu], folders: Sequence[Path] | None = None
) -> list[Problem]:
    """What keeps a provider from running; empty where nothing does.

    Args:
        provider: the one that is asked for.
        build: of ONNX Runtime.
        gpus: the devices that the driver tells of.
        folders: where libraries lie that the system's loader does not know; None: NVIDIA's wheels.
    """
    if not provider.needs_gpu:
        return []
    if provider.ort_name not in build.providers:
        return [_not_built(provider, build)]
    assert provider.library is not None
    library = build.folder / provider.library
    if not library.is_file():
        what = f"onnxruntime {build.version} has no {provider.library}, though it names {provider.ort_name}"
        return [Problem(codes.ORT_WITHOUT_PROVIDER, what)]
    found = []
    if not gpus:
        found.append(Problem(codes.GPU, "the driver tells of no CUDA device"))
    found += _libraries(library, pip_folders() if folders is None else folders)
    found += _kernels(build.folder, gpus)
    return found


def _not_built(provider: Provider, build: Build) -> Problem:
    if not any(name in build.providers for name in ("CUDAExecutionProvider", "TensorrtExecutionProvider")):
        what = f"onnxruntime {build.version} is the CPU build: it has no {provider.ort_name}"
        both = _installed("onnxruntime") and _installed("onnxruntime-gpu")
        cure = (
            "onnxruntime and onnxruntime-gpu are both installed, and overwrite each other: "
            "pip uninstall onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu"
        )
        return Problem(codes.ORT_CPU_ONLY, what, cure if both else None)
    there = ", ".join(name.removesuffix("ExecutionProvider") for name in build.providers)
    what = f"onnxruntime {build.version} was built without {provider.ort_name}; it has {there}"
    return Problem(codes.ORT_WITHOUT_PROVIDER, what)


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _libraries(library: Path, folders: Sequence[Path]) -> Iterator[Problem]:
    for name, said in missing_libraries(library, folders).items():
        if name == DRIVER:  # told as a GPU that is not there
            continue
        if name == library.name:
            yield Problem(codes.ORT_IMPORT, f"{name} is damaged: {said}")
            continue
        what = f"{library.name} needs {name}, which cannot be loaded"
        code = codes.code_of_library(name)
        others = other_majors(name, folders)
        if others:
            what += f"; {', '.join(others)} is here"
            code = codes.TENSORRT_MAJOR if code is codes.LIBNVINFER else code
        yield Problem(code, what)


def _kernels(folder: Path, gpus: Sequence[Gpu]) -> Iterator[Problem]:
    """What TensorRT's provider leaves to CUDA's runs on CUDA's kernels, so both are held to them."""
    library = folder / str(CUDA.library)
    capability = gpus[0].compute_capability if gpus else None
    if capability is None or not library.is_file():
        return
    try:
        kernels = read_kernels(library)
    except NotElf:
        return  # told with the libraries
    if (kernels.cubin or kernels.ptx) and not covers(kernels, capability):
        there = ", ".join(_dotted(one) for one in sorted(kernels.cubin | kernels.ptx))
        what = (
            f"{gpus[0].name} has compute capability {_dotted(capability)}, {library.name} has kernels for {there}"
        )
        yield Problem(codes.COMPUTE_CAPABILITY, what)


def covers(kernels: Kernels, capability: Capability) -> bool:
    """Whether a GPU can run kernels: compiled for it or for an earlier one of its kind, or portable ones."""
    if any(portable <= capability for portable in kernels.ptx):
        return True
    if capability in _TEGRA:
        return capability in kernels.cubin
    return any(
        built[0] == capability[0] and built[1] <= capability[1] and built not in _TEGRA for built in kernels.cubin
    )


def _dotted(capability: Capability) -> str:
    return ".".join(map(str, capability))
