"""Verify that files are a bundle, down to the last byte, wherever they are read from.

What is checked is what is hashed: every file is read once. Sizes are known from the manifest, and
bounded, before any of it is read; the content of a file is only parsed once its sha256 is right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from dskd_export.bundle.calibration import CalibrationFacts
from dskd_export.bundle.golden import Golden
from dskd_export.bundle.manifest import (
    CALIBRATION,
    GOLDEN,
    LABELS,
    MANIFEST,
    SPEC,
    FileFacts,
    Manifest,
    labels_text,
    model_name,
    needs_calibration,
    weights_name,
)
from dskd_export.bundle.onnx_file import read_onnx
from dskd_export.bundle.strict_json import load_document
from dskd_export.errors import BundleError
from dskd_export.files.atomic import sha256_bytes
from dskd_export.spec import METADATA_KEY, ModelSpec

CHUNK = 1 << 20

_EXPORT_AGAIN = "Export it again: dskd-compress export"


class Readable(Protocol):
    """What bytes come from: a file, or a part of an archive."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        ...


@dataclass(frozen=True)
class Contents:
    """What a verified bundle contains.

    Attributes:
        manifest: its files, what made its models, and where they come from.
        spec: input, preprocessing and classes.
        calibration: what quantised models were calibrated on; None where there are none.
        sha256: of `manifest.json`, and through it of everything in the bundle.
    """

    manifest: Manifest
    spec: ModelSpec
    calibration: CalibrationFacts | None
    sha256: str

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions there are, sorted, for example `("fp16", "fp32")`."""
        return self.manifest.precisions


def verify_contents(
    manifest_data: bytes,
    open_file: Callable[[str, int], AbstractContextManager[Readable]],
    place: Callable[[str], str],
) -> Contents:
    """Read all files of a bundle, in the order of its manifest, and check them.

    Args:
        manifest_data: content of `manifest.json`.
        open_file: name and size in bytes -> the file; it refuses another size before it is read.
        place: name -> path of that file, for messages.

    Raises:
        BundleError: the first thing that is wrong, in one line.
    """
    manifest = Manifest.parse(manifest_data, place(MANIFEST))

    def content(name: str) -> bytes:
        facts = manifest.files[name]
        with open_file(name, facts.size) as stream:
            return read_verified(stream, facts, place(name))

    # In the order of the manifest, in which an archive has them.
    spec = load_document(content(SPEC), ModelSpec, place(SPEC))
    if content(LABELS) != labels_text(spec.classes).encode():
        raise BundleError(f"{place(LABELS)} does not hold the classes of {SPEC}.", _EXPORT_AGAIN)
    calibration = None
    if CALIBRATION in manifest.files:
        calibration = load_document(content(CALIBRATION), CalibrationFacts, place(CALIBRATION))
        _check_calibration(calibration, manifest, place(CALIBRATION))
    Golden.from_bytes(content(GOLDEN), spec, place(GOLDEN))
    for precision in manifest.precisions:
        model = model_name(precision)
        _check_model(content(model), manifest, model, spec, place(model))
        weights = weights_name(model)
        if weights in manifest.files:
            facts = manifest.files[weights]
            with open_file(weights, facts.size) as stream:
                check_hash(stream, facts, place(weights))
    return Contents(manifest, spec, calibration, sha256_bytes(manifest_data))


def read_verified(stream: Readable, facts: FileFacts, place: str) -> bytes:
    """Read a file that the manifest lists.

    Raises:
        BundleError: they are not those that were exported.
    """
    pieces, left = [], facts.size
    # An archive gives pieces, so that one that ends early never has its claimed size set aside for it.
    while left and (piece := stream.read(left)):
        pieces.append(piece)
        left -= len(piece)
    data = b"".join(pieces)
    _check_same(len(data), sha256_bytes(data), facts, place)
    return data


def check_hash(stream: Readable, facts: FileFacts, place: str) -> None:
    """Check the hash of a file that need not be in memory.

    Raises:
        BundleError: it is not the one that was exported.
    """
    digest, size = hashlib.sha256(), 0
    while size < facts.size and (piece := stream.read(min(CHUNK, facts.size - size))):
        digest.update(piece)
        size += len(piece)
    _check_same(size, digest.hexdigest(), facts, place)


def _check_same(size: int, sha256: str, facts: FileFacts, place: str) -> None:
    if size != facts.size or sha256 != facts.sha256:
        raise BundleError(f"{place} is not the file that was exported: its sha256 differs.", _EXPORT_AGAIN)


def _check_calibration(calibration: CalibrationFacts, manifest: Manifest, place: str) -> None:
    for precision in sorted(calibration.precisions.keys() | set(manifest.precisions)):
        listed = precision in calibration.precisions
        if listed and precision not in manifest.precisions:
            raise BundleError(
                f"{place} lists {precision}, but the bundle has no {precision} model.", _EXPORT_AGAIN
            )
        if not listed and needs_calibration(precision):
            raise BundleError(f"{place} has no entry for {precision}.", _EXPORT_AGAIN)


def _check_model(data: bytes, manifest: Manifest, model: str, spec: ModelSpec, place: str) -> None:
    weights = weights_name(model)
    facts = manifest.files.get(weights)
    size = None if facts is None else facts.size
    found = read_onnx(data, place, weights_name=weights, weights_size=size)
    if size is not None and found.external_bytes is None:
        raise BundleError(f"{place} does not use {weights}.", _EXPORT_AGAIN)
    if METADATA_KEY in found.metadata:
        # Only the operator set may differ: some types need a newer one.
        own = load_document(found.metadata[METADATA_KEY].encode(), ModelSpec, place)
        if own.model_copy(update={"opset": spec.opset}) != spec:
            raise BundleError(f"{place} has a different spec than {SPEC}.", _EXPORT_AGAIN)
