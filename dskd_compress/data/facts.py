"""The hash that says which images were used."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal

from dskd_compress.data.image_set import StoredSet

# Above this the contents take longer to read than a person wants to wait before a run.
CONTENT_LIMIT_BYTES = 1 << 30


def fingerprint(
    sets: Mapping[str, StoredSet], limit_bytes: int = CONTENT_LIMIT_BYTES
) -> tuple[str, Literal["content", "listing"]]:
    """Hash image sets: split, class, name and size of every image, and its contents where that is cheap.

    Neither the folder in which the data lie nor the files' dates enter.

    Args:
        limit_bytes: contents are hashed up to this size in total.

    Returns:
        sha256 in hex, and whether it covers the contents or only the listing.
    """
    with_content = _total_bytes(sets, limit_bytes) <= limit_bytes
    digest = hashlib.sha256()
    for split, images in sets.items():
        digest.update("\0".join((split, str(len(images)), *images.classes)).encode() + b"\n")
        for index in range(len(images)):
            fields = [images.name(index), str(images.label(index)), str(images.stored_bytes(index))]
            if with_content:
                fields.append(hashlib.sha256(images.content(index)).hexdigest())
            digest.update("\0".join(fields).encode() + b"\n")
    return digest.hexdigest(), "content" if with_content else "listing"


def _total_bytes(sets: Mapping[str, StoredSet], limit_bytes: int) -> int:
    """Size of all contents; counting ends where it passes the limit or a size is unknown."""
    total = 0
    for images in sets.values():
        for index in range(len(images)):
            size = images.stored_bytes(index)
            if size is None:
                return limit_bytes + 1
            total += size
            if total > limit_bytes:
                return total
    return total
