"""Find why a provider of ONNX Runtime cannot run here, before a session is made.

ONNX Runtime falls back to the CPU with a line in the log if a provider cannot be loaded.
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
from dskd_export.runtime.shared_libraries import find_missing_libraries, find_other_majors, list_pip_folders
from dskd_export.telemetry.cuda import DRIVER, Gpu, format_capability

# Compiled code of a Tegra runs only on that one; elsewhere on all later GPUs of the same major version.
# CUDA C++ Programming Guide, "Binary Compatibility"; developer.nvidia.com/cuda-gpus.
_TEGRA: frozenset[Capability] = frozenset({(5, 3), (6, 2), (7, 2), (8, 7), (10, 1), (11, 0)})


@dataclass(frozen=True)
class Build:
    """An installed ONNX Runtime.

    Attributes:
        version: for example `1.31.1`.
        providers: ONNX Runtime's names of its providers.
        folder: of the libraries of its providers.
    """

    version: str
    providers: tuple[str, ...]
    folder: Path


@dataclass(frozen=True)
class Problem:
    """A reason why a provider cannot run; `cure` overrides that of the code."""

    code: Code
    what: str
    cure: str | None = None

    def error(self, before: str = "", after: str = "") -> EnvironmentProblem:
        """Make an error of it; `before` and `after` complete the sentence."""
        return EnvironmentProblem(f"{before}{self.what}{after}.", self.cure, code=self.code)


def find_problems(
    provider: Provider, build: Build, gpus: Sequence[Gpu], folders: Sequence[Path] | None = None
) -> list[Problem]:
    """List what keeps a provider from running.

    Args:
        provider: the requested one.
        build: of ONNX Runtime.
        gpus: devices that the driver lists.
        folders: of libraries that the system's loader does not search; None: NVIDIA's wheels.
    """
    if not provider.needs_gpu:
        return []
    if provider.ort_name not in build.providers:
        return [_explain_not_built(provider, build)]
    assert provider.library is not None
    library = build.folder / provider.library
    if not library.is_file():
        what = f"onnxruntime {build.version} lists {provider.ort_name} and lacks {provider.library}"
        return [Problem(codes.ORT_WITHOUT_PROVIDER, what)]
    found = []
    if not gpus:
        found.append(Problem(codes.GPU, "the driver lists no CUDA device"))
    found += _libraries(library, list_pip_folders() if folders is None else folders)
    found += _kernels(build.folder, gpus)
    return found


def _explain_not_built(provider: Provider, build: Build) -> Problem:
    if not any(name in build.providers for name in ("CUDAExecutionProvider", "TensorrtExecutionProvider")):
        what = f"onnxruntime {build.version} is the CPU build, without {provider.ort_name}"
        both = _is_installed("onnxruntime") and _is_installed("onnxruntime-gpu")
        cure = (
            "onnxruntime and onnxruntime-gpu overwrite each other. Run: "
            "pip uninstall onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu"
        )
        return Problem(codes.ORT_CPU_ONLY, what, cure if both else None)
    there = ", ".join(name.removesuffix("ExecutionProvider") for name in build.providers)
    what = f"onnxruntime {build.version} was built without {provider.ort_name}; it has {there}"
    return Problem(codes.ORT_WITHOUT_PROVIDER, what)


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _libraries(library: Path, folders: Sequence[Path]) -> Iterator[Problem]:
    for name, said in find_missing_libraries(library, folders).items():
        if name == DRIVER:  # reported as a missing GPU
            continue
        if name == library.name:
            yield Problem(codes.ORT_IMPORT, f"{name} is damaged: {said}")
            continue
        what = f"{library.name} needs {name}, which cannot be loaded"
        code = codes.code_of_library(name)
        others = find_other_majors(name, folders)
        if others:
            what += f"; {', '.join(others)} is installed"
            code = codes.TENSORRT_MAJOR if code is codes.LIBNVINFER else code
        yield Problem(code, what)


def _kernels(folder: Path, gpus: Sequence[Gpu]) -> Iterator[Problem]:
    """Check CUDA's kernels for both GPU providers: TensorRT's passes nodes on to CUDA's."""
    library = folder / str(CUDA.library)
    capability = gpus[0].compute_capability if gpus else None
    if capability is None or not library.is_file():
        return
    try:
        kernels = read_kernels(library)
    except NotElf:
        return  # reported with the libraries
    if (kernels.cubin or kernels.ptx) and not covers(kernels, capability):
        there = ", ".join(format_capability(one) for one in sorted(kernels.cubin | kernels.ptx))
        own = format_capability(capability)
        what = f"{gpus[0].name} has compute capability {own}; {library.name} has kernels for {there}"
        yield Problem(codes.COMPUTE_CAPABILITY, what)


def covers(kernels: Kernels, capability: Capability) -> bool:
    """Whether a GPU can run kernels: compiled for it, for an earlier one of its major version, or portable."""
    if any(portable <= capability for portable in kernels.ptx):
        return True
    if capability in _TEGRA:
        return capability in kernels.cubin
    return any(
        built[0] == capability[0] and built[1] <= capability[1] and built not in _TEGRA for built in kernels.cubin
    )
