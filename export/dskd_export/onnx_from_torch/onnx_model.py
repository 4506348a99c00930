"""An ONNX model in memory: one protobuf, with large weights in a second file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dskd_export.bundle.manifest import weights_name
from dskd_export.files.atomic import write_atomic

# Larger weights go into a second file: a protobuf ends at 2 GB, and the graph needs some of it.
MAX_SINGLE_FILE_BYTES = 1_900_000_000


@dataclass(frozen=True)
class OnnxModel:
    """A serialised ONNX model under the name that it must be written by.

    Attributes:
        file_name: for example `model.fp32.onnx`; with `weights` no other name will do, as `proto` refers to them.
        proto: the protobuf.
        weights: content of the file `weights_name(file_name)`; None: everything is in `proto`.
    """

    file_name: str
    proto: bytes
    weights: bytes | None = None

    @property
    def size_bytes(self) -> int:
        """Of both files."""
        return len(self.proto) + len(self.weights or b"")

    def files(self) -> dict[str, bytes]:
        """File name -> content, one or two of them."""
        files = {self.file_name: self.proto}
        if self.weights is not None:
            files[weights_name(self.file_name)] = self.weights
        return files

    def write(self, folder: Path) -> Path:
        """Write each file atomically into a folder; remove a stale weights file.

        Returns:
            The path to open.

        Raises:
            EnvironmentProblem: the disk is full, or the place cannot be written to.
        """
        path = folder / self.file_name
        # The weights first: what can be opened is complete.
        for name, content in sorted(self.files().items(), reverse=True):
            write_atomic(folder / name, content)
        if self.weights is None:
            (folder / weights_name(self.file_name)).unlink(missing_ok=True)
        return path
