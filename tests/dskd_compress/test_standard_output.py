from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from process_support import exit_codes, start_function
from run_support import SMALL

from dskd_compress.cli import main

PRINTS = (
    "import sys\n"
    "from dskd_compress.standard_output import guard_output\n"
    "with guard_output() as lost:\n"
    "    print('\\u2713 \\udcff')\n"
    "    print('\\u2713', file=sys.stderr)\n"
    "    sys.stdout.flush()\n"
    "sys.exit(0 if lost.error is None else lost.error.errno)\n"
)


def printed(redirect: str = "", **environment: str) -> tuple[int, str, str]:
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {redirect}', sys.executable, PRINTS],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )
    return done.returncode, done.stdout.strip(), done.stderr.strip()


@pytest.mark.parametrize(
    ("encoding", "text"), [("ascii", "\\u2713 \\udcff"), ("latin-1", "\\u2713 \\udcff"), ("utf-8", "✓ \\udcff")]
)
def test_what_cannot_be_encoded_is_escaped(encoding: str, text: str) -> None:
    assert printed(PYTHONIOENCODING=encoding) == (0, text, text.split()[0])


def test_what_cannot_be_written_is_dropped() -> None:
    assert printed(">/dev/full")[0] == errno.ENOSPC
    assert printed("2>/dev/full")[:2] == (0, "✓ \\udcff")
    assert printed(">&-") == (0, "", "✓")
    assert printed(">&- 2>&- <&-") == (0, "", "")


def train_into(stdout: str | None, arguments: list[str], said: str) -> None:
    """Run a command line whose stdout is a file or device; None: a pipe whose reader has left."""
    os.environ["OMP_NUM_THREADS"] = "1"
    reader, writer = os.pipe()
    os.dup2(writer if stdout is None else os.open(stdout, os.O_WRONLY), 1)
    os.close(reader)
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
    sys.exit(main(arguments))


@pytest.mark.parametrize(("stdout", "code", "lines"), [("/dev/full", 4, 2), (None, 141, 0)])
def test_a_training_outlives_its_output(stdout: str | None, code: int, lines: int, tmp_path: Path) -> None:
    import yaml

    recipe = {**SMALL, "teacher": {**SMALL["teacher"], "train": {**SMALL["teacher"]["train"], "epochs": 1}}}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    arguments = ["train", str(tmp_path / "small.yaml"), "--out", str(tmp_path / "run")]
    process = start_function(train_into, stdout, arguments, str(tmp_path / "said"))
    assert exit_codes(process) == [code]
    said = (tmp_path / "said").read_text(encoding="utf-8")
    assert len(said.splitlines()) == lines, said
    assert said.startswith("error: Standard output cannot be written" if lines else "")
    assert {"teacher.safetensors", "teacher.json"} <= {path.name for path in (tmp_path / "run").iterdir()}
