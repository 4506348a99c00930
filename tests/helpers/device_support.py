"""A small real bundle that its own golden images fit, with labelled images beside it."""

from __future__ import annotations

from pathlib import Path

import bundle_support
import numpy as np
from PIL import Image

from dskd_export.bundle import BundledModel, write_bundle
from dskd_export.bundle.golden import Golden
from dskd_export.runtime.images import pixel_sha256
from dskd_export.runtime.preprocess import preprocess_batch

IMAGES = 12
"""Of each class."""


def make_device_bundle(folder: Path) -> Path:
    """Write `bundle/` and `photos/CLASS/00.png`; returns the bundle.

    The models are the classifier of `bundle_support`: fp32, and the same again as int8. Each photo has the
    label that the classifier gives it, but for the first of each class.
    """
    spec = bundle_support.make_spec()
    weight, bias = bundle_support.make_head()
    rng = np.random.default_rng(0)
    kept: list[tuple[Image.Image, int]] = []
    counts = dict.fromkeys(range(len(spec.classes)), 0)
    while min(counts.values()) < IMAGES and sum(counts.values()) < IMAGES * 4:
        tint = rng.integers(0, 256, 3)
        noise = rng.integers(-40, 40, (10, 14, 3))
        image = Image.fromarray((tint + noise).clip(0, 255).astype(np.uint8))
        logits_K = expected_logits(preprocess_batch([image], spec), weight, bias)[0]
        label = int(logits_K.argmax())
        if counts[label] >= IMAGES:
            continue
        folder.joinpath("photos", spec.classes[label]).mkdir(parents=True, exist_ok=True)
        image.save(folder / "photos" / spec.classes[label] / f"{counts[label]:02}.png")
        counts[label] += 1
        kept.append((image, label))
    chosen = kept[:9]
    inputs = preprocess_batch([image for image, _ in chosen], spec)
    golden = Golden(
        input=inputs.astype(np.float32),
        logits=expected_logits(inputs, weight, bias),
        labels=np.array([label for _, label in chosen], np.int64),
        image_sha256=np.array([pixel_sha256(image) for image, _ in chosen]),
    )
    models = bundle_support.make_models()
    int8 = BundledModel(bundle_support.make_model().SerializeToString(deterministic=True), "a quantiser 2.0")
    arguments = bundle_support.bundle_arguments()
    arguments |= {"golden": golden, "models": {"fp32": models["fp32"], "int8": int8}}
    write_bundle(folder / "bundle", **arguments)
    return folder / "bundle"


def expected_logits(inputs_BCHW: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """What the classifier gives, in float64."""
    return (inputs_BCHW.astype(np.float64).mean(axis=(2, 3)) @ weight + bias).astype(np.float32)
