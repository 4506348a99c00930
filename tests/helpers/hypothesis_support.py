"""How many examples a property is tried on."""

from __future__ import annotations

from hypothesis import settings

_USUAL = 100


def examples(count: int) -> int:
    """So many examples in `make test`, and more of them under a profile that tries more.

    Args:
        count: for a property that costs more, or less, than most; those have 100.
    """
    return count * settings.default.max_examples // _USUAL
