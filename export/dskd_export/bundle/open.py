"""The bundle: one self-contained folder with all that a device needs to run and check a model.

    model.<precision>.onnx   the model, one file each
    spec.json                input, preprocessing and classes
    golden.npz               real inputs with the reference logits
    manifest.json            sha256 and size of every file, and where they come from

Nothing in it is trusted: names, sizes and hashes are checked before a file is used, and nothing
is loaded by pickle. Shape suffixes: B images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from dskd_export.documents import Document
from dskd_export.errors import BundleError, UsageError
from dskd_export.files import atomic_folder, sha256_bytes, sha256_file
from dskd_export.golden import Golden
from dskd_export.spec import ModelSpec

MANIFEST = "manifest.json"
SPEC = "spec.json"
GOLDEN = "golden.npz"

_PRECISION = re.compile(r"[a-z0-9]+")
_MODEL = re.compile(r"model\.([a-z0-9]+)\.onnx")
_EXPORT_AGAIN = "Export it again: dskd-compress export"

# Largest sizes in bytes that are read; an ONNX file is a protobuf, which ends at 2 GB.
_MAX_MANIFEST = 4 << 20
_MAX_SIZE = {SPEC: 16 << 20, GOLDEN: 1 << 30}
_MAX_MODEL = (2 << 30) - 1


class FileFacts(Document):
    """One file of a bundle."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0, description="bytes")


class Manifest(Document):
    """`manifest.json`."""

    schema_version: Literal[1] = 1
    files: dict[str, FileFacts]
    provenance: dict[str, Any] = Field(description="where the model comes from; no absolute paths")

    def to_json(self) -> str:
        """Canonical JSON: the same manifest gives the same bytes."""
        return json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Attributes:
        folder: where it lies.
        manifest: its files and its origin.
        spec: input, preprocessing and classes.
        sha256: of `manifest.json`, and through it of everything in the bundle.
    """

    folder: Path
    manifest: Manifest
    spec: ModelSpec
    sha256: str

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions there are, sorted, for example `("fp16", "fp32")`."""
        return _precisions(self.manifest)

    def model_path(self, precision: str) -> Path:
        """The ONNX file of a precision.

        Raises:
            UsageError: the bundle has no such precision; the message lists those there.
        """
        if precision not in self.precisions:
            raise UsageError(
                f"{self.folder} holds no model of precision {precision}; it holds {', '.join(self.precisions)}.",
                "Name one of these, or export the precision that you need.",
            )
        return self.folder / f"model.{precision}.onnx"

    def golden(self) -> Golden:
        """The real inputs with their reference logits.

        Raises:
            BundleError: the file was altered since the bundle was opened, or does not fit the spec.
        """
        path = self.folder / GOLDEN
        data = path.read_bytes()
        if sha256_bytes(data) != self.manifest.files[GOLDEN].sha256:
            raise BundleError(f"{path} was altered.", _EXPORT_AGAIN)
        return Golden.from_bytes(data, self.spec, str(path))


def write_bundle(
    folder: Path,
    *,
    spec: ModelSpec,
    models: Mapping[str, bytes],
    golden: Golden,
    provenance: Mapping[str, Any],
) -> Manifest:
    """Write a bundle in place of the one that is there; the old one survives a failure.

    The same arguments give the same bytes.

    Args:
        folder: the bundle's folder; it is replaced as a whole.
        spec: input, preprocessing and classes.
        models: precision, for example `fp32`, -> serialised ONNX model.
        golden: real inputs with their reference logits.
        provenance: where the model comes from: plain JSON values, no absolute paths.

    Raises:
        BundleError: `folder` holds something else than a bundle, or the golden images do not fit the spec.
        EnvironmentProblem: the disk is full, or the place cannot be written to.
        ValueError: no models, a precision that is no word, or an absolute path in `provenance`.
    """
    folder = folder.resolve()
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise BundleError(
            f"{folder} holds files but no {MANIFEST}: it is not a bundle, and is left alone.",
            "Choose an empty or a new folder.",
        )
    if not models or not all(_PRECISION.fullmatch(precision) for precision in models):
        raise ValueError(f"models: {sorted(models)} are not names of precisions")
    for where, text in _strings(provenance, "provenance"):
        if text.startswith(("/", "~")) or re.match(r"[A-Za-z]:[\\/]", text):
            raise ValueError(f"{where}: a bundle holds no absolute paths, and this is one: {text}")
    golden.check(spec, GOLDEN)
    contents = {f"model.{precision}.onnx": data for precision, data in models.items()}
    contents[SPEC] = spec.to_json().encode()
    contents[GOLDEN] = golden.to_bytes()
    manifest = Manifest(
        files={
            name: FileFacts(sha256=sha256_bytes(data), size=len(data)) for name, data in sorted(contents.items())
        },
        provenance=dict(provenance),
    )
    contents[MANIFEST] = manifest.to_json().encode()
    with atomic_folder(folder) as temporary:
        for name, data in contents.items():
            (temporary / name).write_bytes(data)
    return manifest


def open_bundle(folder: Path) -> Bundle:
    """Verify a bundle down to the last byte and open it.

    Raises:
        BundleError: a file is missing, altered, too large, not named in the manifest, not a plain
            file, or has a name that leads out of the folder.
    """
    if not folder.is_dir():
        raise BundleError(f"{folder}: there is no such bundle.", "Make one: dskd-compress export")
    path = folder / MANIFEST
    if not path.exists():
        raise BundleError(f"{folder} is not a bundle: it holds no {MANIFEST}.", "Make one: dskd-compress export")
    _check_file(path, _MAX_MANIFEST)
    data = path.read_bytes()
    manifest = _parse_manifest(data, path)
    listed = set(manifest.files) | {MANIFEST}
    for name in sorted({entry.name for entry in folder.iterdir()} - listed):
        raise BundleError(f"{folder / name} is not in the manifest.", "Move it out of the bundle.")
    for name, facts in manifest.files.items():
        file = folder / name
        _check_file(file, _MAX_SIZE.get(name, _MAX_MODEL))
        if file.stat().st_size != facts.size or sha256_file(file) != facts.sha256:
            raise BundleError(f"{file} is not the file that was exported: its sha256 differs.", _EXPORT_AGAIN)
    return Bundle(folder, manifest, ModelSpec.read(folder / SPEC), sha256_bytes(data))


def _parse_manifest(data: bytes, path: Path) -> Manifest:
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise BundleError(f"{path}: {where}: {first['msg']}", _EXPORT_AGAIN) from error
    for name in manifest.files:
        # These are the only names a bundle has, so none can lead out of its folder.
        if name not in (SPEC, GOLDEN) and not _MODEL.fullmatch(name):
            raise BundleError(f"{path} names {name!r}, which is no file of a bundle.", _EXPORT_AGAIN)
    missing = [name for name in (SPEC, GOLDEN) if name not in manifest.files]
    if missing or not _precisions(manifest):
        raise BundleError(f"{path} does not name {(missing or ['a model'])[0]}.", _EXPORT_AGAIN)
    return manifest


def _precisions(manifest: Manifest) -> tuple[str, ...]:
    found = (_MODEL.fullmatch(name) for name in manifest.files)
    return tuple(sorted(match[1] for match in found if match))


def _check_file(path: Path, max_size: int) -> None:
    """Refuse what is missing, a link, a device, or too large to read."""
    try:
        facts = path.lstat()
    except FileNotFoundError as error:
        raise BundleError(f"{path} is missing.", _EXPORT_AGAIN) from error
    if not stat.S_ISREG(facts.st_mode):
        raise BundleError(f"{path} is not a plain file.", "Copy the bundle again, with its files and not links.")
    if facts.st_size > max_size:
        raise BundleError(
            f"{path} has {facts.st_size:,} bytes; at most {max_size:,} are read.", "Do not use this bundle."
        )


def _strings(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """Every text in a JSON value, with its place."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(item, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _strings(item, f"{where}[{index}]")
