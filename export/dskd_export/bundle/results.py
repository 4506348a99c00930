"""Where measurements of a bundle are written: in its run, or in a folder of results on a device.

Both hold the same files, so that the report reads either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dskd_export.bundle.manifest import MANIFEST, SPEC
from dskd_export.bundle.open import Bundle
from dskd_export.bundle.source import open_source, source_name
from dskd_export.documents.base import StageRecord
from dskd_export.documents.benchmark import BenchmarkDocument
from dskd_export.documents.validation import ValidationDocument
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


Measurement = ValidationDocument | BenchmarkDocument
"""A document with the provenance of its numbers."""


class ResultsFolder(Protocol):
    """A folder that takes the results of one stage."""

    @property
    def path(self) -> Path:
        """For files that the stage writes itself, such as raw samples."""
        ...

    def write(self, document: Measurement, data_sha256: str | None = None) -> None:
        """Write a stage's document and its record; all other files of the stage are there already.

        Args:
            document: of the stage.
            data_sha256: of the images; None: there were none.

        Raises:
            BundleError: the bundle was replaced meanwhile.
            EnvironmentProblem: the folder cannot be written to.
        """
        ...


@dataclass(frozen=True)
class BundleResults:
    """The folder of results of a bundle on a device, for one stage.

    Attributes:
        path: of the folder.
        bundle: that is measured.
        stage: `validate` or `benchmark`.
        outputs: files of the stage in the folder, the document first.
        settings_sha256: section -> sha256 of its settings.
    """

    path: Path
    bundle: Bundle
    stage: str
    outputs: tuple[str, ...]
    settings_sha256: Mapping[str, str]

    def write(self, document: Measurement, data_sha256: str | None = None) -> None:
        """See `ResultsFolder.write`; also keeps what the report reads of the bundle."""
        kept = {name: (self.bundle.folder / name).read_bytes() for name in _KEPT}
        if sha256_bytes(kept[MANIFEST]) != self.bundle.sha256:
            raise BundleError(
                f"{self.bundle.folder} was replaced while it was in use.", "Run the same command again."
            )
        for name, content in kept.items():
            write_atomic(self.path / "bundle" / name, content)
        write_atomic(self.path / self.outputs[0], document.model_dump_json(indent=2) + "\n")
        data = {} if data_sha256 is None else {"data": data_sha256}
        record = StageRecord(
            stage=self.stage,
            settings_sha256=dict(self.settings_sha256),
            inputs={f"bundle/{MANIFEST}": self.bundle.sha256, **data},
            outputs={name: sha256_file(self.path / name) for name in self.outputs},
            provenance=document.provenance,
        )
        write_atomic(self.path / "stages" / f"{self.stage}.json", record.model_dump_json(indent=2) + "\n")


def hold_results(out: Path, warn: Callable[[str], None]) -> AbstractContextManager[None]:
    """Hold a folder of results alone: see `hold_folder`."""
    return hold_folder(out, warn, names=_WRITTEN, folders=("bundle", "stages", "benchmark.partial"))


@contextmanager
def open_results(
    source: Path, out: Path | None, device: str, warn: Callable[[str], None]
) -> Iterator[tuple[Bundle, Path]]:
    """Open a bundle, and hold the folder of its results; gives both.

    Args:
        source: the bundle, packed or not.
        out: folder of results; None: `results/<bundle>/<device>`.
        device: name of this one.
        warn: called where the folder's last owner was killed.

    Raises:
        BundleError: this is no bundle, or a damaged one.
        EnvironmentProblem: another process writes to the folder.
        UsageError: the folder lies in the bundle.
    """
    folder = out or results_folder(source, device)
    check_out(folder, source)
    with open_source(source) as bundle, hold_results(folder, warn):
        yield bundle, folder


def results_folder(source: Path, device: str) -> Path:
    """Name the default folder of results: `results/<bundle>/<device>` in the working directory."""
    return Path("results") / source_name(source) / device


def check_out(out: Path, source: Path) -> None:
    """Refuse results inside the bundle, which would then be none.

    Raises:
        UsageError: they would lie there.
    """
    bundle = source.resolve()
    if bundle.is_dir() and bundle in (out.resolve(), *out.resolve().parents):
        raise UsageError(f"{out} lies in the bundle {source}.", "Name a folder outside of it with --out.")
