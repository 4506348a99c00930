"""Pack a bundle into one file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from dskd_export.bundle.codec import CODECS, DIGEST_BYTES, END, codec_of, default_codec, padding, tar_header
from dskd_export.bundle.manifest import MANIFEST
from dskd_export.bundle.open import Bundle, open_bundle, open_stranger
from dskd_export.bundle.verify import CHUNK
from dskd_export.errors import BundleError, UsageError
from dskd_export.files.atomic import atomic_path


def pack_bundle(folder: Path, out: Path | None = None) -> Path:
    """Verify a bundle and pack it into one file; replace an older packed bundle.

    The archive in the file is the same on every machine; the file is, with the same version of the
    compression library. `tar` reads it.

    Args:
        folder: the bundle.
        out: the file, ending in `.tar.zst` or `.tar.gz`; None: next to the folder, with its name, in
            Zstandard where that is installed.

    Returns:
        The file.

    Raises:
        BundleError: the bundle is damaged or unsafe, or changed meanwhile; or `out` is another file.
        EnvironmentProblem: the disk is full, or the place cannot be written to.
        MissingExtra: `.tar.zst` needs zstandard, which is not installed.
        UsageError: `out` ends in something else.
    """
    codec = default_codec() if out is None else codec_of(out.name)
    if codec is None:
        suffixes = " or ".join(codec.suffix for codec in CODECS)
        raise UsageError(f"{out} does not end in {suffixes}.", f"Use: --out {out}{CODECS[-1].suffix}")
    if out is None:
        named = folder if folder.name not in ("", "..") else folder.resolve()
        out = named.with_name(named.name + codec.suffix)
    compressor = codec.compressor()
    bundle = open_bundle(folder)
    _check_replaceable(out)
    with atomic_path(out) as temporary, temporary.open("r+b") as file:
        file.write(codec.mark + bytes(DIGEST_BYTES))
        digest = hashlib.sha256()

        def write(data: bytes) -> None:
            digest.update(data)
            file.write(data)

        for piece in _archive(bundle):
            write(compressor.compress(piece))
        write(compressor.flush())
        file.seek(len(codec.mark))
        file.write(digest.digest())
    return out


def _archive(bundle: Bundle) -> Iterator[bytes]:
    """The archive in pieces; the manifest comes first, so that it is known what must follow."""
    manifest = bundle.manifest.to_json().encode()
    yield tar_header(MANIFEST, len(manifest)) + manifest + padding(len(manifest))
    for name in bundle.manifest.order:
        facts = bundle.manifest.files[name]
        yield tar_header(name, facts.size)
        digest, left = hashlib.sha256(), facts.size
        with open_stranger(bundle.folder / name, bundle.folder / name) as file:
            while left and (piece := file.read(min(CHUNK, left))):
                digest.update(piece)
                left -= len(piece)
                yield piece
        if left or digest.hexdigest() != facts.sha256:
            raise BundleError(f"{bundle.folder / name} changed while it was packed.", "Pack it again.")
        yield padding(facts.size)
    yield END


def _check_replaceable(path: Path) -> None:
    if path.is_dir():
        raise UsageError(f"{path} is a folder.", f"Name a file, for example: {path / 'bundle.tar.gz'}")
    if not path.exists():
        return
    with open_stranger(path, path, follow_links=True) as file:
        begin = file.read(max(len(codec.mark) for codec in CODECS))
    if not any(begin.startswith(codec.mark) for codec in CODECS):
        raise BundleError(f"{path} is not a packed bundle.", "Choose another name.")
