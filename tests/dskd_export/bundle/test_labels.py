from __future__ import annotations

import ast

from hypothesis import example, given, settings
from hypothesis import strategies as st

from dskd_export.bundle.manifest import labels_text

NAMES = st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1)


@settings(deadline=None)
@given(NAMES)
@example(["a\nb", "c\r", "\u2028", "\x85", "\x0b\x0c", "", " ", "back\\slash", "\\n", "größe", "'\""])
def test_one_line_a_class_whatever_its_name(names: list[str]) -> None:
    text = labels_text(names)
    lines = text.splitlines()
    assert len(lines) == len(names)
    assert text.count("\n") == len(names)
    # Python's own rules for what stands in a string give the names back.
    quoted = (line.replace('"', r"\"") for line in lines)
    assert [ast.literal_eval(f'"{line}"') for line in quoted] == names


def test_plain_names_stay_as_they_are() -> None:
    names = [
        "tench",
        "great white shark",
        "größe",
        "犬",
        "no-break\xa0space",
        "\u0378 of a later Unicode",
        "\u202e",
    ]
    assert labels_text(names) == "\n".join(names) + "\n"


def test_a_name_with_a_line_break() -> None:
    assert labels_text(["\udcff.jpg", "\x1b[2J"]) == "\\udcff.jpg\n\\x1b[2J\n"
    assert labels_text(["two\nlines", "c:\\x"]) == "two\\nlines\nc:\\\\x\n"
