"""The folder of results: what a run folder has of a validation and a benchmark, and what they are of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from dskd_export.bundle import Bundle
from dskd_export.bundle.manifest import MANIFEST, SPEC
from dskd_export.documents.base import Document, Provenance, StageRecord
from dskd_export.errors import BundleError, UsageError
from dskd_export.files.atomic import sha256_bytes, sha256_file, write_atomic
from dskd_export.files.folder_lock import hold_folder

# The report reads these; the models stay where they are.
_KEPT = (MANIFEST, SPEC)
MEASURED = ("benchmark.json", "benchmark.samples.npz")
BENCHMARK_FILES = (*MEASURED, *(f"bundle/{name}" for name in _KEPT), "stages/benchmark.json")
"""All that a benchmark leaves in a folder of results."""
_WRITTEN = frozenset(
    (*MEASURED, "validation.json", "ab.json", "devices.json", "report.html", "report.md", "report.csv")
)


def writing_results(out: Path, warn: Callable[[str], None]) -> AbstractContextManager[None]:
    """Hold a folder of results alone: see `hold_folder`."""
    return hold_folder(out, warn, names=_WRITTEN, folders=("bundle", "stages", "benchmark.partial"))


def check_out(out: Path, source: Path) -> None:
    """Refuse results that would lie in the bundle, which would then be none.

    Raises:
        UsageError: they would.
    """
    bundle = source.resolve()
    if bundle.is_dir() and bundle in (out.resolve(), *out.resolve().parents):
        raise UsageError(f"{out} lies in the bundle {source}.", "Name a folder outside of it with --out.")


def write_results(
    out: Path,
    bundle: Bundle,
    stage: str,
    document: Document,
    outputs: tuple[str, ...],
    provenance: Provenance,
    settings_sha256: Mapping[str, str],
    data_sha256: str | None = None,
) -> None:
    """Write a document, what it is of, and the record of the stage.

    Args:
        out: the folder of results.
        bundle: that was validated or timed.
        stage: `validate` or `benchmark`.
        document: the first of `outputs`.
        outputs: files of the stage in the folder; the others are there already.
        provenance: of the stage.
        settings_sha256: section -> sha256 of what was asked for.
        data_sha256: of the images; None: there were none.

    Raises:
        BundleError: the bundle was replaced meanwhile.
        EnvironmentProblem: the folder cannot be written to.
    """
    kept = {name: (bundle.folder / name).read_bytes() for name in _KEPT}
    if sha256_bytes(kept[MANIFEST]) != bundle.sha256:
        raise BundleError(f"{bundle.folder} was replaced while it was in use.", "Run the same command again.")
    for name, content in kept.items():
        write_atomic(out / "bundle" / name, content)
    write_atomic(out / outputs[0], document.model_dump_json(indent=2) + "\n")
    inputs = {f"bundle/{MANIFEST}": bundle.sha256}
    if data_sha256 is not None:
        inputs["data"] = data_sha256
    record = StageRecord(
        stage=stage,
        settings_sha256=dict(settings_sha256),
        inputs=inputs,
        outputs={name: sha256_file(out / name) for name in outputs},
        provenance=provenance,
    )
    write_atomic(out / "stages" / f"{stage}.json", record.model_dump_json(indent=2) + "\n")
