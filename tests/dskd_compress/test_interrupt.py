from __future__ import annotations

import importlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dskd_compress import cli, console, interrupt
from dskd_compress.cli import main
from dskd_compress.training.signals import StopRequest

BEFORE = signal.getsignal(signal.SIGINT)


@pytest.fixture(autouse=True)
def _forget() -> object:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    interrupt.forget_ctrl_c()
    signal.signal(signal.SIGINT, BEFORE)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.mark.parametrize(
    "instead",
    [
        ImportError("No module named 'torch'"),
        RuntimeError("DataLoader worker (pid 1) exited"),
        OSError(28, "full"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_library_makes_of_ctrl_c_it_is_an_interrupt(
    instead: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def library(**_: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise instead from None

    monkeypatch.setattr(cli, "app", library)
    assert main(["run"]) == 130
    assert capsys.readouterr().err == "Interrupted. Resume with: dskd-compress run\n"
    assert not interrupt.ctrl_c_came()  # of the next command


@pytest.mark.parametrize(
    ("given", "run", "resume"),
    [
        ("run runs/a --to validate --lr 1 --json", "runs/a", "dskd-compress run runs/a --to validate"),
        ("--debug distill my.yaml --out 'a b'", "a b", "dskd-compress distill 'a b'"),
        ("--debug distill my.yaml --out 'a b'", None, "dskd-compress distill my.yaml --out 'a b'"),
        ("benchmark runs/a --batch 1,8", None, "dskd-compress benchmark runs/a --batch 1,8"),
        ("doctor --json", None, None),
        ("", None, None),
    ],
)
def test_the_command_that_resumes(given: str, run: str | None, resume: str | None) -> None:
    found = interrupt.make_resume_command(shlex.split(given), None if run is None else Path(run))
    assert found == resume


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("words", "resumes"),
    [(["benchmark", "runs/a", "--json"], True), (["build", "runs/a"], True), (["validate", "runs/a"], False)],
)
def test_an_interrupt_is_no_error(
    number: signal.Signals,
    words: list[str],
    resumes: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(console, "_document_written", False)
    monkeypatch.setattr(cli, "app", lambda **_: signal.raise_signal(number))
    assert main(words) == 130
    out, err = capsys.readouterr()
    resume = f"Resume with: dskd-compress {' '.join(words)}"
    assert err == (f"Interrupted. {resume}\n" if resumes else "Interrupted.\n")
    if "--json" in words:
        facts = json.loads(out)["error"]
        assert (facts["kind"], facts["hint"], facts["exit_code"]) == ("Interrupted", resume, 130)


def test_torchrun_ends_its_processes_by_sigterm_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    interrupt.watch_for_ctrl_c()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_same_errors_without_ctrl_c_keep_their_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "full")

    monkeypatch.setattr(cli, "app", full)
    assert main(["run"]) == 4


def test_a_swallowed_ctrl_c_stops_the_training_before_its_first_step() -> None:
    interrupt.watch_for_ctrl_c()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    with StopRequest() as stop:
        assert stop.requested == "SIGINT"


def test_an_import_is_not_torn_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch aborts the process where an exception reaches its C++ in the middle of an import."""
    (tmp_path / "long_import.py").write_text(
        "import signal\nsignal.raise_signal(signal.SIGINT)\nfinished = True\n", encoding="ascii"
    )
    monkeypatch.syspath_prepend(tmp_path)
    interrupt.watch_for_ctrl_c()
    importlib.import_module("long_import")
    with pytest.raises(KeyboardInterrupt):
        time.sleep(5)
    assert sys.modules["long_import"].finished


@pytest.mark.parametrize(("presses", "import_s"), [(1, 1), (1, 60), (2, 60)])
def test_ctrl_c_while_the_program_is_imported(presses: int, import_s: int, tmp_path: Path) -> None:
    """The whole way: the command line of a training, in the middle of what it imports."""
    (tmp_path / "typer.py").write_text(
        "import os, time\n"
        "print('importing', flush=True)\n"
        f"time.sleep({import_s})\n"
        "raise SystemError('torn apart')\n",
        encoding="ascii",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "dskd_compress", "distill"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    for _ in range(presses):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "Interrupted. Resume with: dskd-compress distill\n")
