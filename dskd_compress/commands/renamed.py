"""Old names of flags: accepted for one release, with a line on stderr that names the new one."""

from __future__ import annotations

import sys
from collections.abc import Sequence

RENAMED: dict[str, dict[str, tuple[str, str]]] = {
    command: {"--precision": ("--amp", "Precisions of models: dskd-compress export RUN --precision fp16")}
    for command in ("train", "distill")
} | {"deploy": {"--target": ("--artifact", ""), "--device": ("--platform", "")}}
"""Command -> old flag -> its new name, and what the old name may have meant instead."""


def rename_flags(arguments: Sequence[str]) -> list[str]:
    """Put the new names of flags in the place of the old ones, and print each on stderr."""
    command = next((word for word in arguments if not word.startswith("-")), "")
    old_names = RENAMED.get(command, {})
    found = []
    for word in arguments:
        flag, equals, value = word.partition("=")
        if flag in old_names:
            new, note = old_names[flag]
            sys.stderr.write(f"warning: {flag} is now {new}. {note}".rstrip() + "\n")
            word = f"{new}{equals}{value}"
        found.append(word)
    return found
