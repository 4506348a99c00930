from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from dskd_export.files.names import is_utf8, make_printable, shell_bytes
from dskd_export.provenance import command_line

LATIN1 = b"caf\xe9".decode("utf-8", "surrogateescape")


def test_names_that_are_not_utf8() -> None:
    assert not is_utf8(LATIN1)
    assert make_printable(LATIN1) == r"caf\xe9"
    assert is_utf8("café \\xe9")
    assert make_printable("café \\xe9") == "café \\xe9"


def test_paths_for_a_shell() -> None:
    assert shell_bytes("a b") == "'a b'"
    for path in (LATIN1, "it's \\ é\n", "$(touch x) é"):
        printed = subprocess.run(
            ["bash", "-c", f"printf %s {shell_bytes(path)}"], capture_output=True, check=True
        ).stdout
        assert printed == path.encode("utf-8", "surrogateescape")


def test_the_command_of_a_result_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["dskd-compress", "validate", f"/x/{LATIN1}", "é", "a b"])
    assert command_line().encode() == r"dskd-compress validate $'/x/caf\xe9' 'é' 'a b'".encode()
    assert shlex.split(command_line())[-2:] == ["é", "a b"]
