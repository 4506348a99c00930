"""The bundle: one self-contained folder with all that a device needs to run and check a model.

    model.<precision>.onnx        the model, one file each
    model.<precision>.onnx.data   its weights, where they are too many for one file
    spec.json                     input, preprocessing and classes
    labels.txt                    the classes once more, one a line
    golden.npz                    real inputs with the reference logits
    calibration.json              what quantised models were calibrated on
    manifest.json                 sha256 and size of every file, and where they come from

Nothing in it is trusted: names, sizes and hashes are checked before a file is used, nothing is loaded
by pickle, and no file of it makes another one be opened. `pack_bundle` makes one file of it.
"""

from __future__ import annotations

from dskd_export.bundle.calibration import CalibrationFacts, PrecisionCalibration
from dskd_export.bundle.manifest import (
    BundleProvenance,
    FileFacts,
    LicenseFacts,
    Licenses,
    Manifest,
    ModelFacts,
    needs_calibration,
)
from dskd_export.bundle.open import Bundle, bundle_of, open_bundle
from dskd_export.bundle.pack import pack_bundle
from dskd_export.bundle.unpack import unpack_bundle, verify_packed
from dskd_export.bundle.verify import Contents
from dskd_export.bundle.write import BundledModel, write_bundle

__all__ = [
    "Bundle",
    "BundleProvenance",
    "BundledModel",
    "CalibrationFacts",
    "Contents",
    "FileFacts",
    "LicenseFacts",
    "Licenses",
    "Manifest",
    "ModelFacts",
    "PrecisionCalibration",
    "bundle_of",
    "needs_calibration",
    "open_bundle",
    "pack_bundle",
    "unpack_bundle",
    "verify_packed",
    "write_bundle",
]
