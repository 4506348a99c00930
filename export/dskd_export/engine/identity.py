"""Find the engines of a bundle, and check whether one can be loaded here before TensorRT does.

TensorRT engines load on the TensorRT version, the GPU model and the operating system that they were built
for (support matrix, "Compatibility"); TensorRT has no call that checks it beforehand. `build.json` records what
the engine was built with; driver and packages identify this machine.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from dskd_export import codes
from dskd_export.documents.base import read_document
from dskd_export.engine.device import find_gpu, system
from dskd_export.engine.document import BuildDocument, GpuFacts, document_path, source_of
from dskd_export.engine.generations import Installed, find_installed
from dskd_export.errors import DataError, DskdError, EnvironmentProblem
from dskd_export.files.atomic import sha256_bytes


def read_engine(engine: Path) -> tuple[BuildDocument, bytes]:
    """Read an engine and its document, which records its hash.

    Raises:
        DataError: one of them is missing, or the hash differs.
    """
    document = read_document(document_path(engine), BuildDocument)
    try:
        data = engine.read_bytes()
    except OSError as error:
        raise DataError(
            f"{engine} cannot be read: {error.strerror}.", "Build it: dskd-compress build BUNDLE"
        ) from error
    if sha256_bytes(data) != document.engine_sha256:
        raise DataError(
            f"{engine} is not the engine that {document_path(engine).name} describes: its sha256 differs.",
            f"Build it again: {rebuild_command(document, engine)}",
        )
    return document, data


def check_identity(
    document: BuildDocument,
    engine: Path,
    *,
    gpu: GpuFacts | None = None,
    there: Installed | None = None,
    device: int = 0,
) -> None:
    """Compare an engine with this machine.

    Args:
        document: of the engine.
        engine: its path, for the command in the hint.
        gpu: to run it on; None: CUDA device `device`.
        there: the TensorRT to load it with; None: the installed one.

    Raises:
        EnvironmentProblem: it cannot run here; names what it was built with and what is here.
    """
    here = gpu or find_gpu(device)
    found = there or next((item for item in find_installed() if item.name == document.backend), None)
    of_tensorrt, of_machine = _tensorrt(document, found), _machine(document, here)
    faults = [*of_tensorrt, *of_machine]
    if document.stripped:
        faults.append("it is stripped of its weights and was not refitted")
    if not faults:
        return
    raise EnvironmentProblem(
        f"{engine} cannot be loaded here: {'; '.join(faults)}. It was built with {_built(document)}; "
        f"here: {_here(found, here)}.",
        f"Build it here: {rebuild_command(document, engine)}",
        code=codes.ENGINE_VERSION if of_tensorrt else codes.ENGINE_GPU if of_machine else None,
    )


def rebuild_command(document: BuildDocument, engine: Path) -> str:
    """Compose the command that builds an engine again on this machine."""
    batches = ",".join(str(profile.largest) for profile in document.profiles)
    parts = [f"dskd-compress build {source_of(engine)} --precision {document.precision}"]
    if batches:
        parts.append(f"--batch {batches}")
    return " ".join(parts)


def _tensorrt(document: BuildDocument, found: Installed | None) -> list[str]:
    if found is None:
        return [f"{document.backend} is not installed"]
    # Without metadata, as in some system packages, the version is checked when TensorRT is loaded.
    if found.version is None or found.version == document.version:
        return []
    if document.version_compatible and _numbers(found.version) >= _numbers(document.version):
        return []
    return [f"it needs {document.backend} {document.version}, {found.version} is installed"]


def _machine(document: BuildDocument, here: GpuFacts | None) -> list[str]:
    faults = []
    if document.system != system():
        faults.append(f"it needs {document.system}, this is {system()}")
    if here is None:
        return [*faults, "this machine has no NVIDIA GPU"]
    if document.targets:
        if here.target not in document.targets:
            faults.append(f"it needs {', '.join(document.targets)}, the GPU is {here.target}")
    elif document.gpu is not None and not _fits(document, here):
        faults.append(
            f"it needs {document.gpu.name} (compute capability {document.gpu.compute_capability}), the GPU is "
            f"{here.name} ({here.compute_capability})"
        )
    return faults


def _fits(document: BuildDocument, here: GpuFacts) -> bool:
    assert document.gpu is not None
    built = document.gpu.compute_capability
    if document.hardware == "ampere-plus":
        return _numbers(here.compute_capability) >= (8, 0)
    if document.hardware == "same-compute-capability":
        return here.compute_capability == built
    return (here.name, here.compute_capability) == (document.gpu.name, built)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _built(document: BuildDocument) -> str:
    gpu = document.gpu
    where = f"ahead of time for {', '.join(document.targets)}" if gpu is None else f"on {gpu.name}"
    driver = f", driver {gpu.driver}" if gpu is not None and gpu.driver else ""
    return f"{document.backend} {document.version} {where}{driver}, {document.system}"


def _here(found: Installed | None, here: GpuFacts | None) -> str:
    tensorrt = "no TensorRT" if found is None else f"{found.name} {found.version or 'of an unknown version'}"
    gpu = "no GPU" if here is None else f"{here.name}, driver {here.driver or 'unknown'}"
    return f"{tensorrt}, {gpu}, {system()}"


@dataclass(frozen=True)
class FoundEngine:
    """An engine next to a bundle.

    Attributes:
        path: of the engine.
        document: what is known of it.
        problem: why it cannot run here; empty if it can.
    """

    path: Path
    document: BuildDocument
    problem: str = ""

    @property
    def precision(self) -> str:
        """Of the model that it was built from."""
        return self.document.precision

    @property
    def size_mb(self) -> float:
        """Of its file, 1 MB = 10^6 bytes."""
        return self.document.engine_bytes / 1e6


def find_engines(
    engines: Path, bundle_sha256: str, precisions: Collection[str] | None = None
) -> list[FoundEngine]:
    """Find one engine for each precision, in the order of names; prefer one that can run here.

    Stripped engines and files without a document of `build` are ignored.

    Args:
        engines: the folder of engines, with one folder for each device; it may be missing.
        bundle_sha256: an engine of another bundle cannot stand for this one.
        precisions: requested ones; None: all.
    """
    best: dict[str, FoundEngine] = {}
    for path in sorted(engines.glob("*/model.*.engine")):
        found = _inspect(path, bundle_sha256)
        if found is None or found.document.stripped or (precisions and found.precision not in precisions):
            continue
        known = best.get(found.precision)
        if known is None or (known.problem and not found.problem):
            best[found.precision] = found
    return [best[name] for name in sorted(best)]


def require_engines(found: Sequence[FoundEngine], source: str) -> None:
    """Require at least one engine that can run here.

    Args:
        found: result of `find_engines`.
        source: run or bundle, for the command in the hint.

    Raises:
        EnvironmentProblem: there is none; names the reason for each.
    """
    if any(not one.problem for one in found):
        return
    why = "; ".join(f"{one.path.name}: {one.problem}" for one in found) or "none was built"
    raise EnvironmentProblem(
        f"No TensorRT engine of {source} can run here: {why}",
        f"Build one here: dskd-compress build {source}",
    )


def _inspect(path: Path, bundle_sha256: str) -> FoundEngine | None:
    try:
        document = read_document(document_path(path), BuildDocument)
    except DskdError:  # not written by `build`
        return None
    if document.bundle_sha256 != bundle_sha256:
        return FoundEngine(path, document, "it was built from another bundle")
    try:
        check_identity(document, path)
    except EnvironmentProblem as error:
        return FoundEngine(path, document, error.message)
    return FoundEngine(path, document)
