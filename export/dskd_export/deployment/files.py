"""What goes into a deployment: bytes that were made, and files that are copied and checked."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from dskd_export.errors import BundleError
from dskd_export.files.atomic import sha256_file


@dataclass(frozen=True)
class Copied:
    """A file that may be too large to hold in memory.

    Attributes:
        source: where it lies.
        sha256: what it has to have, 64 hexadecimal digits.
    """

    source: Path
    sha256: str


Content = bytes | Copied


def write_content(path: Path, content: Content) -> None:
    """Write one file, with the folders above it.

    Raises:
        BundleError: what was copied is not what was verified.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
        return
    shutil.copyfile(content.source, path)
    if sha256_file(path) != content.sha256:
        raise BundleError(f"{content.source} was altered while it was copied.", "Start again.")
