"""One digest for plain values: the same value gives the same sha256 on every machine."""

from __future__ import annotations

import hashlib
import json


def digest(value: object) -> str:
    """Hash the canonical JSON of a value with sha256; what JSON has no type for counts as its text.

    Raises:
        ValueError: it holds NaN or infinity.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
