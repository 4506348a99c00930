"""Keep the finished cells of a benchmark until all are finished, so that an interrupted one resumes."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dskd_export.documents.base import Document, read_document
from dskd_export.documents.benchmark import BenchmarkRow
from dskd_export.errors import DataError
from dskd_export.files.atomic import sha256_bytes, write_atomic
from dskd_export.files.npz import read_npz
from dskd_export.provenance import versions
from dskd_export.settings import BenchmarkSettings
from dskd_export.telemetry.host import device_name

FOLDER = "benchmark.partial"


class FinishedCell(Document):
    """One finished cell."""

    depends_on: str = Field(description="sha256 of everything that shapes it")
    rows: list[BenchmarkRow]


class CellStore:
    """A folder with two files for each cell: its rows, and its samples.

    Args:
        folder: of the results; the store is a folder in it.
        depends_on: texts of everything that shapes a cell: bundle, settings, device, versions. A cell of anything
            else is timed again.
        fresh: discard finished cells.
    """

    def __init__(self, folder: Path, depends_on: Sequence[str], *, fresh: bool = False) -> None:
        self._folder = folder / FOLDER
        self._depends_on = sha256_bytes("\n".join(depends_on).encode())
        if fresh:
            self.clear()

    def get(self, key: str) -> tuple[list[BenchmarkRow], dict[str, NDArray[np.float64]]] | None:
        """Read a finished cell; None where it is missing or unreadable."""
        try:
            cell = read_document(self._folder / f"{key}.json", FinishedCell)
            arrays = read_npz(self._folder / f"{key}.npz")
            samples = {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}
        except (DataError, OSError, ValueError):
            return None
        if cell.depends_on != self._depends_on or {row.samples_key for row in cell.rows} - {None} != set(samples):
            return None
        return cell.rows, samples

    def put(self, key: str, rows: Sequence[BenchmarkRow], samples: Mapping[str, NDArray[np.float64]]) -> None:
        """Write a finished cell. Its rows come last: without them it is unfinished."""
        write_samples(self._folder / f"{key}.npz", samples)
        cell = FinishedCell(depends_on=self._depends_on, rows=list(rows))
        write_atomic(self._folder / f"{key}.json", cell.model_dump_json())

    def clear(self) -> None:
        """Remove all cells, once their document is written."""
        shutil.rmtree(self._folder, ignore_errors=True)


def open_store(folder: Path, bundle_sha256: str, settings: BenchmarkSettings, *, fresh: bool = False) -> CellStore:
    """Open the store of a bundle's cells with these settings, on this device, with the installed versions."""
    shaping = settings.model_dump_json(exclude={"profile"})  # a profile is measured apart from the cells
    depends_on = [bundle_sha256, shaping, device_name(), str(sorted(versions().items()))]
    return CellStore(folder, depends_on, fresh=fresh)


def write_samples(path: Path, samples: Mapping[str, NDArray[np.float64]]) -> None:
    """Write raw samples as a compressed `.npz`."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **samples)  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())
