"""A bundle as commands take it: a folder, or one packed file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dskd_export.bundle.open import Bundle, open_bundle
from dskd_export.bundle.unpack import unpack_bundle

_SUFFIXES = (".tar.zst", ".tar.gz")


def is_bundle(source: Path) -> bool:
    """Whether this is a bundle, packed or not; a run folder that holds one is none."""
    return source.is_file() or (source / "manifest.json").exists()


@contextmanager
def open_source(source: Path) -> Iterator[Bundle]:
    """Open and verify a bundle; a packed one is unpacked for as long as it is used.

    Raises:
        BundleError: as `open_bundle` and `unpack_bundle`.
        EnvironmentProblem: there is no room to unpack it.
    """
    if source.is_dir() or not source.exists():
        yield open_bundle(source)
        return
    with tempfile.TemporaryDirectory(prefix="dskd-bundle-") as folder:
        yield unpack_bundle(source, Path(folder) / "bundle")


def source_name(source: Path) -> str:
    """Name a bundle in the path of its results: its file, its folder, or the run that holds it."""
    path = source.resolve()
    if path.name == "bundle" and (path.parent / "recipe.yaml").is_file():
        path = path.parent
    return next((path.name.removesuffix(suffix) for suffix in _SUFFIXES if path.name.endswith(suffix)), path.name)
