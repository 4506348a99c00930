"""Find the engines of a bundle, and which of them run on this machine."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from dskd_export.documents.base import read_document
from dskd_export.engine.document import BuildDocument, document_path
from dskd_export.engine.identity import check_identity
from dskd_export.errors import DskdError, EnvironmentProblem


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
