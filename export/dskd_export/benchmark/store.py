"""Cells of a benchmark that are done, kept until all are: what was interrupted goes on where it stopped."""

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

FOLDER = "benchmark.partial"


class KeptCell(Document):
    """One cell that is done."""

    of: str = Field(description="sha256 of all that it depends on")
    rows: list[BenchmarkRow]


class CellStore:
    """A folder with two files for each cell: its rows, and its samples.

    Args:
        folder: of the results; the store is a folder in it.
        of: texts of all that a cell depends on: bundle, settings, device, versions. A cell of anything else is
            timed anew.
        fresh: forget what is there.
    """

    def __init__(self, folder: Path, of: Sequence[str], *, fresh: bool = False) -> None:
        self._folder = folder / FOLDER
        self._of = sha256_bytes("\n".join(of).encode())
        if fresh:
            self.clear()

    def get(self, key: str) -> tuple[list[BenchmarkRow], dict[str, NDArray[np.float64]]] | None:
        """A cell that is done; None where it is not, or cannot be read."""
        try:
            kept = read_document(self._folder / f"{key}.json", KeptCell)
            arrays = read_npz(self._folder / f"{key}.npz")
            samples = {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}
        except (DataError, OSError, ValueError):
            return None
        if kept.of != self._of or {row.samples_key for row in kept.rows} - {None} != set(samples):
            return None
        return kept.rows, samples

    def put(self, key: str, rows: Sequence[BenchmarkRow], samples: Mapping[str, NDArray[np.float64]]) -> None:
        """Keep a cell. Its rows come last: without them it is not done."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **samples)  # type: ignore[arg-type]
        write_atomic(self._folder / f"{key}.npz", buffer.getvalue())
        write_atomic(self._folder / f"{key}.json", KeptCell(of=self._of, rows=list(rows)).model_dump_json())

    def clear(self) -> None:
        """Forget all cells, once their document is written."""
        shutil.rmtree(self._folder, ignore_errors=True)
