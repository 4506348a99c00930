"""Settings of a command line: `--set key=value`, and the flags that stand for keys."""

from __future__ import annotations


class FlagOverride(str):
    """`key=value` that a flag stands for.

    Attributes:
        flag: as it was typed, for example `--epochs 1`; errors show it.
    """

    flag: str

    def __new__(cls, text: str, flag: str) -> FlagOverride:
        """Make one of the setting and the flag."""
        made = super().__new__(cls, text)
        made.flag = flag
        return made


def as_typed(override: str) -> str:
    """An override as it stands on the command line."""
    return override.flag if isinstance(override, FlagOverride) else f"--set {override}"
