"""Write the folder of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dskd_export.bundle.calibration import CalibrationFacts
from dskd_export.bundle.golden import Golden
from dskd_export.bundle.manifest import (
    CALIBRATION,
    GOLDEN,
    LABELS,
    MANIFEST,
    PRECISION,
    SPEC,
    BundleProvenance,
    FileFacts,
    Manifest,
    ModelFacts,
    check_no_absolute_paths,
    labels_text,
    model_name,
    size_limit,
    weights_name,
)
from dskd_export.bundle.open import verify_folder
from dskd_export.bundle.strict_json import canonical_json
from dskd_export.errors import BundleError
from dskd_export.files.atomic import atomic_folder, sha256_bytes
from dskd_export.spec import ModelSpec


@dataclass(frozen=True)
class BundledModel:
    """The model of one precision.

    Attributes:
        proto: serialised ONNX model.
        producer: the tool that made it, with its version, for example `torch.onnx dynamo 2.13.0`.
        weights: content of the weights file, which the model names `model.<precision>.onnx.data`;
            None: everything is in `proto`.
        details: settings and findings to be kept with it: plain JSON values, no absolute paths.
    """

    proto: bytes
    producer: str
    weights: bytes | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


def write_bundle(
    folder: Path,
    *,
    spec: ModelSpec,
    models: Mapping[str, BundledModel],
    golden: Golden,
    provenance: BundleProvenance,
    calibration: CalibrationFacts | None = None,
) -> Manifest:
    """Write a bundle; replace an older one, which survives a failure.

    The same arguments give the same bytes. What was written is opened before it takes its place, so
    there is no bundle that `open_bundle` would refuse.

    Args:
        folder: the bundle's folder; it is replaced as a whole.
        spec: input, preprocessing and classes.
        models: precision, for example `fp32`, -> its model.
        golden: real inputs with their reference logits.
        provenance: where the models come from.
        calibration: needed with a precision that cannot do without, see `needs_calibration`.

    Raises:
        BundleError: `folder` holds something else than a bundle; the golden images do not fit the spec;
            a model is invalid, or stored in another file; a file exceeds its size limit.
        EnvironmentProblem: the disk is full, or the place cannot be written to.
        ValueError: no models, a precision that is no word, or an absolute path in provenance, details
            or calibration.
    """
    folder = folder.resolve()
    check_replaceable(folder)
    if not models or not all(PRECISION.fullmatch(precision) for precision in models):
        raise ValueError(f"models: {sorted(models)} are not names of precisions")
    golden.check(spec, GOLDEN)
    contents = {
        SPEC: spec.to_json().encode(),
        LABELS: labels_text(spec.classes).encode(),
        GOLDEN: golden.to_bytes(),
    }
    if calibration is not None:
        facts = calibration.model_dump()
        check_no_absolute_paths(facts, "calibration")
        contents[CALIBRATION] = canonical_json(facts).encode()
    for precision, model in models.items():
        name = model_name(precision)
        contents[name] = model.proto
        if model.weights is not None:
            contents[weights_name(name)] = model.weights
    for name, data in contents.items():
        limit = size_limit(name)
        if limit is None or len(data) > limit:
            raise BundleError(
                f"{name} has {len(data):,} bytes; at most {limit:,} fit into a bundle.", "Choose a smaller model."
            )
    manifest = Manifest.of(
        files={name: FileFacts(sha256=sha256_bytes(data), size=len(data)) for name, data in contents.items()},
        models={
            precision: ModelFacts(producer=model.producer, details=dict(model.details))
            for precision, model in models.items()
        },
        provenance=provenance,
    )
    contents[MANIFEST] = manifest.to_json().encode()
    with atomic_folder(folder) as temporary:
        for name, data in contents.items():
            (temporary / name).write_bytes(data)
        verify_folder(temporary, folder)
    return manifest


def check_replaceable(folder: Path) -> None:
    """Check what a new bundle would replace: only an older bundle is replaced.

    Raises:
        BundleError: the folder holds files that belong to no bundle.
    """
    if not folder.is_dir():
        return
    names = {entry.name for entry in folder.iterdir()}
    if not names:
        return
    if MANIFEST not in names or any(size_limit(name) is None for name in names - {MANIFEST}):
        raise BundleError(
            f"{folder} holds files that belong to no bundle.",
            "Choose an empty or a new folder.",
        )
