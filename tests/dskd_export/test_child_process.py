"""A child process imports nothing from the working directory."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dskd_export.child_process import make_module_command, make_script_command


@pytest.mark.parametrize(
    "command",
    [
        make_script_command("import json, sys; print(json.dumps(sys.argv[1:]))", "a", "-b"),
        make_module_command("json.tool", "--compact", "input"),
    ],
)
def test_a_folder_named_like_a_package_is_not_imported(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    (tmp_path / "json/__init__.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "input").write_text('["a",  "-b"]')
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout.replace(" ", ""), done.stderr) == (0, '["a","-b"]\n', "")
