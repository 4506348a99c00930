"""Which pixels a training sample has: the number of its view, and the hash of all that shapes them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from importlib.metadata import version

from dskd_compress.config import AugmentSection
from dskd_compress.data.preprocessing import Preprocessing

# Their resampling and their draws make the pixels; another version may make others.
_PIXEL_LIBRARIES = ("pillow", "timm", "torch", "torchvision")


def choose_view(epoch: int, views: int | None) -> int:
    """Return the number of the augmentation that every image has in an epoch."""
    return epoch if views is None else epoch % views


def augmentation_digest(augment: AugmentSection, preprocessing: Preprocessing, seed: int, loader: str) -> str:
    """Hash what makes the pixels of (view, index), apart from the images themselves.

    The number of views is not in it: view 2 is the same one of three or of thirty.

    Returns:
        sha256 in hex.
    """
    facts = {
        "augment": augment.model_dump(mode="json", exclude={"views"}),
        "preprocessing": asdict(preprocessing),
        "seed": seed,
        "loader": loader,
        "versions": {name: version(name) for name in _PIXEL_LIBRARIES},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
