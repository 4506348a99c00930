"""Open the folder of a bundle."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, get_args

from dskd_export.bundle.golden import Golden
from dskd_export.bundle.manifest import GOLDEN, MANIFEST, MAX_MANIFEST, model_name, weights_name
from dskd_export.bundle.verify import Contents, check_hash, read_verified, verify_contents
from dskd_export.documents.precision import Precision
from dskd_export.errors import BundleError, UsageError
from dskd_export.files.atomic import NotAPlainFile, open_plain
from dskd_export.files.json_text import one_line


def bundle_of(source: Path) -> Path:
    """Find the bundle of a run folder; return anything else unchanged, a packed bundle too."""
    inside = source / "bundle"
    return inside if inside.is_dir() and not (source / MANIFEST).exists() else source


@dataclass(frozen=True)
class Bundle(Contents):
    """A verified bundle in a folder.

    Attributes:
        folder: its place.
    """

    folder: Path

    def model_path(self, precision: str) -> Path:
        """Path of the ONNX file of a precision, for tools that need a path; `model` returns the verified content.

        Raises:
            UsageError: the bundle has no such precision; the message lists those there.
        """
        if precision not in self.precisions:
            hint = "Name one of these."
            if precision in get_args(Precision):
                wanted = ",".join([*(name for name in self.precisions if name != "fp32"), precision])
                run = _run_of(self.folder)
                hint = f"Name one of these, or export it: dskd-compress export {run} --precision {wanted}"
            raise UsageError(
                f"{self.folder} holds no model of precision {precision}; it holds {', '.join(self.precisions)}.",
                hint,
            )
        return self.folder / model_name(precision)

    def model(self, precision: str) -> bytes | Path:
        """Read a model for a runner: its verified content, or its path where it has a weights file.

        Both files are hashed again; a path is safe as long as no other process writes to the folder.

        Raises:
            BundleError: the model was altered since the bundle was opened.
            UsageError: the bundle has no such precision.
        """
        path = self.model_path(precision)
        data = self._read(path.name)
        if not self.manifest.has_weights_file(precision):
            return data
        weights = weights_name(path.name)
        facts = self.manifest.files[weights]
        with _open_file(self.folder / weights, facts.size) as file:
            check_hash(file, facts, str(self.folder / weights))
        return path

    def model_mb(self, precision: str) -> float:
        """Size of a model with its weights file, 1 MB = 10^6 bytes.

        Raises:
            UsageError: the bundle has no such precision.
        """
        name = self.model_path(precision).name
        return sum(facts.size for file, facts in self.manifest.files.items() if file.startswith(name)) / 1e6

    def golden(self) -> Golden:
        """Read the real inputs with their reference logits.

        Raises:
            BundleError: the file was altered since the bundle was opened.
        """
        return Golden.from_bytes(self._read(GOLDEN), self.spec, str(self.folder / GOLDEN))

    def _read(self, name: str) -> bytes:
        facts = self.manifest.files[name]
        with _open_file(self.folder / name, facts.size) as file:
            return read_verified(file, facts, str(self.folder / name))


def open_bundle(folder: Path) -> Bundle:
    """Verify a bundle down to the last byte and open it.

    Raises:
        BundleError: a file is missing, altered, too large, not named in the manifest, not a plain
            file, has a name that leads out of the folder, or holds what it must not.
    """
    contents = verify_folder(folder, folder)
    return Bundle(contents.manifest, contents.spec, contents.calibration, contents.sha256, folder)


def _run_of(folder: Path) -> str:
    """Find the run folder of a bundle, quoted for a command line; `RUN` where it is not known."""
    runs = [place for place in (folder, folder.parent) if (place / "recipe.yaml").is_file()]
    return shlex.quote(str(runs[0])) if runs else "RUN"


def verify_folder(folder: Path, shown: Path) -> Contents:
    """Verify the content of a folder.

    Args:
        folder: its place.
        shown: its name in messages; another one while a new bundle is not yet in its place.

    Raises:
        BundleError: as `open_bundle`.
    """
    if not folder.is_dir():
        raise BundleError(f"{shown}: no such bundle.", f"Make one: dskd-compress export {_run_of(shown)}")
    if not (folder / MANIFEST).is_symlink() and not (folder / MANIFEST).exists():
        raise BundleError(
            f"{shown} is not a bundle: it holds no {MANIFEST}.", f"Make one: dskd-compress export {_run_of(shown)}"
        )
    with _open_file(folder / MANIFEST, None, shown / MANIFEST) as file:
        data = file.read(MAX_MANIFEST)
    contents = verify_contents(
        data,
        lambda name, size: _open_file(folder / name, size, shown / name),
        lambda name: str(shown / name),
    )
    listed = contents.manifest.files.keys() | {MANIFEST}
    for entry in folder.iterdir():
        if entry.name not in listed:
            raise BundleError(
                f"{shown} holds '{one_line(entry.name)}', which is not in the manifest.",
                "Move it out of the bundle.",
            )
    return contents


@contextmanager
def _open_file(path: Path, size: int | None, shown: Path | None = None) -> Iterator[BinaryIO]:
    """A file of exactly this size, or a manifest, of which there must not be more than is read of one."""
    shown = shown or path
    with open_stranger(path, shown) as file:
        found = os.fstat(file.fileno()).st_size
        if size is None and found > MAX_MANIFEST:
            raise BundleError(
                f"{shown} has {found:,} bytes; at most {MAX_MANIFEST:,} are read.", "Do not use this bundle."
            )
        if size is not None and found != size:
            raise BundleError(
                f"{shown} is not the file that was exported: it has {found:,} bytes instead of {size:,}.",
                "Copy or export it again.",
            )
        yield file


def open_stranger(path: Path, shown: Path, *, follow_links: bool = False) -> BinaryIO:
    """Open an untrusted plain file.

    Raises:
        BundleError: it is missing, a link, a folder, a device or a pipe, or cannot be read.
    """
    try:
        return open_plain(path, follow_links=follow_links)
    except FileNotFoundError as error:
        raise BundleError(f"{shown} is missing.", "Copy or export it again.") from error
    except NotAPlainFile as error:
        raise BundleError(
            f"{shown} is not a plain file.", "Copy the bundle again, with its files and not links."
        ) from error
    except OSError as error:
        raise BundleError(f"{shown} cannot be read: {error.strerror}.", "Check its permissions: ls -l") from error
