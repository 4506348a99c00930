"""What a command is given: a bundle in a folder, or in one file."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dskd_export.bundle import Bundle, open_bundle, unpack_bundle
from dskd_export.telemetry.cuda import cuda_devices
from dskd_export.telemetry.host import board, host_facts

_SUFFIXES = (".tar.zst", ".tar.gz")


def is_bundle(source: Path) -> bool:
    """Whether this is a bundle, packed or not; a run folder that holds one is none."""
    return source.is_file() or (source / "manifest.json").exists()


@contextmanager
def opened(source: Path) -> Iterator[Bundle]:
    """The verified bundle; a packed one is unpacked for as long as it is used.

    Raises:
        BundleError: as `open_bundle` and `unpack_bundle`.
        EnvironmentProblem: there is no room to unpack it.
    """
    if source.is_dir() or not source.exists():
        yield open_bundle(source)
        return
    with tempfile.TemporaryDirectory(prefix="dskd-bundle-") as folder:
        yield unpack_bundle(source, Path(folder) / "bundle")


def name_of(source: Path) -> str:
    """What a bundle is called in the path of its results: its file, its folder, or the run that holds it."""
    path = source.resolve()
    if path.name == "bundle" and (path.parent / "recipe.yaml").is_file():
        path = path.parent
    return next((path.name.removesuffix(suffix) for suffix in _SUFFIXES if path.name.endswith(suffix)), path.name)


def device_name() -> str:
    """This device in the path of its results: its board, its GPU or its CPU, whichever is there first."""
    gpus = cuda_devices()
    name = board() or (gpus[0] if gpus else host_facts().cpu)
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "device"


def default_out(source: Path) -> Path:
    """`results/<bundle>/<device>` in the working directory."""
    return Path("results") / name_of(source) / device_name()
