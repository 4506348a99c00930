"""Verify or unpack a packed bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from dskd_export.bundle.codec import (
    BLOCK,
    CODECS,
    DIGEST_BYTES,
    END,
    Codec,
    claimed_size,
    codec_of,
    padding,
    tar_header,
)
from dskd_export.bundle.manifest import MANIFEST, MAX_MANIFEST
from dskd_export.bundle.open import Bundle, open_stranger
from dskd_export.bundle.verify import CHUNK, Contents, Readable, verify_contents
from dskd_export.bundle.write import check_replaceable
from dskd_export.errors import BundleError, UsageError
from dskd_export.files.atomic import atomic_folder

_COPY_AGAIN = "Copy or pack it again."


def verify_packed(file: Path) -> Contents:
    """Verify a packed bundle down to the last byte; nothing is written.

    Raises:
        BundleError: it is damaged, or no file that `pack_bundle` wrote, or the bundle in it is not one
            that `open_bundle` would open.
        MissingExtra: it is a `.tar.zst` and zstandard is not installed.
    """
    return _read(file, None)


def unpack_bundle(file: Path, out: Path | None = None) -> Bundle:
    """Unpack a bundle into a folder; replace an older bundle.

    It is verified while it is unpacked, and the folder appears only once all of it is right.

    Args:
        file: the packed bundle.
        out: the folder; None: next to the file, with its name.

    Raises:
        BundleError: as `verify_packed`; or `out` holds something else than a bundle.
        EnvironmentProblem: the disk is full, or the place cannot be written to.
        MissingExtra: as `verify_packed`.
        UsageError: `out` is not given, and the file's name does not say one.
    """
    folder = (out or default_folder(file)).resolve()
    check_replaceable(folder)
    with atomic_folder(folder) as temporary:
        contents = _read(file, temporary)
    return Bundle(contents.manifest, contents.spec, contents.calibration, contents.sha256, folder)


def default_folder(file: Path) -> Path:
    """Name the folder that a packed bundle is unpacked to: next to it, with its name.

    Raises:
        UsageError: its name does not end as that of a packed bundle.
    """
    codec = codec_of(file.name)
    if codec is None:
        suffixes = " or ".join(codec.suffix for codec in CODECS)
        raise UsageError(f"{file} does not end in {suffixes}.", "Name the folder to unpack to: --out FOLDER")
    return file.with_name(file.name.removesuffix(codec.suffix))


def _read(path: Path, into: Path | None) -> Contents:
    with ExitStack() as stack:
        file = stack.enter_context(open_stranger(path, path, follow_links=True))
        archive = _Archive(file, _check_digest(file, path), path, into)
        contents = verify_contents(archive.manifest(), archive.member, lambda name: f"{path}: {name}")
        archive.end()
    return contents


def _check_digest(file: BinaryIO, path: Path) -> Codec:
    """Check all compressed bytes against the sha256 in front of them; return their codec."""
    begin = file.read(max(codec.begin for codec in CODECS))
    for codec in CODECS:
        if begin.startswith(codec.mark):
            break
    else:
        raise BundleError(f"{path} is not a packed bundle.", "Make one: dskd-compress bundle pack FOLDER")
    file.seek(codec.begin)
    digest = hashlib.sha256()
    while piece := file.read(CHUNK):
        digest.update(piece)
    if digest.digest() != begin[len(codec.mark) : codec.begin][:DIGEST_BYTES]:
        raise BundleError(f"{path} was altered or cut off: its own sha256 differs.", _COPY_AGAIN)
    file.seek(0)
    return codec


class _Archive:
    """The members of an archive, each exactly where and as long as the manifest says.

    Args:
        into: a folder that each member is written to while it is read; None: nowhere.
    """

    def __init__(self, file: BinaryIO, codec: Codec, path: Path, into: Path | None) -> None:
        self._errors = codec.errors()
        self._stream: Any = codec.open_reader(file)
        self._path = path
        self._into = into

    def read(self, size: int) -> bytes:
        """At most `size` bytes of the archive, in one piece of bounded length."""
        try:
            data: bytes = self._stream.read(min(size, CHUNK))
        except self._errors as error:
            raise BundleError(f"{self._path} is damaged inside.", _COPY_AGAIN) from error
        return data

    def manifest(self) -> bytes:
        header = self._exactly(BLOCK)
        size = claimed_size(header)
        if size is None or size > MAX_MANIFEST or header != tar_header(MANIFEST, size):
            raise self._refused(f"it does not begin with {MANIFEST}")
        data = self._exactly(size)
        self._pad(size)
        if self._into is not None:
            (self._into / MANIFEST).write_bytes(data)
        return data

    @contextmanager
    def member(self, name: str, size: int) -> Iterator[Readable]:
        if self._exactly(BLOCK) != tar_header(name, size):
            raise self._refused(f"{name} is out of place")
        with ExitStack() as stack:
            copy = None if self._into is None else stack.enter_context((self._into / name).open("xb"))
            yield _Copied(self, copy)
        self._pad(size)

    def end(self) -> None:
        """Check that the archive ends here, and the file with it."""
        if self._exactly(len(END)) != END or self.read(1):
            raise self._refused("data follows its last file")

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.read(size - len(data))
            if not piece:
                raise self._refused("it ends too early")
            data += piece
        return data

    def _pad(self, size: int) -> None:
        expected = padding(size)
        if self._exactly(len(expected)) != expected:
            raise self._refused("there is data between its files")

    def _refused(self, why: str) -> BundleError:
        return BundleError(f"{self._path} is not a packed bundle: {why}.", "Do not unpack it.")


class _Copied:
    """A member that is written to a file while it is read."""

    def __init__(self, archive: _Archive, copy: BinaryIO | None) -> None:
        self._archive = archive
        self._copy = copy

    def read(self, size: int) -> bytes:
        data = self._archive.read(size)
        if self._copy is not None:
            self._copy.write(data)
        return data
