"""A child process imports nothing from the working directory."""

from __future__ import annotations

import signal
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


def test_children_are_stopped_whichever_thread_waits_for_them() -> None:
    # In a process of its own: the children of the tests themselves go on.
    script = (
        "import subprocess, sys, threading, time\n"
        "from dskd_export.child_process import stop_children\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
        "codes = []\n"
        "waits = threading.Thread(target=lambda: codes.append(subprocess.run(sleep).returncode))\n"
        "waits.start()\n"
        "while waits.is_alive():\n"
        "    stop_children()\n"
        "    time.sleep(0.05)\n"
        "print(codes)\n"
    )
    done = subprocess.run(make_script_command(script), capture_output=True, text=True, timeout=50)
    assert done.stdout == f"[{-signal.SIGTERM}]\n", done.stderr
