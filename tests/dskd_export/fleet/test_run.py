"""A command on another machine, from the bundle to its results, with a stand-in for the tool."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ssh_support import Server, is_alive

from dskd_export.fleet import run as remote_run
from dskd_export.fleet.run import RemoteCommand, run_remotely
from dskd_export.fleet.ssh import ConnectionLost, RemoteFailed

SHA256 = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # of `{}`

TOOL = """#!/bin/sh
[ "$1" = --version ] && { echo 1; exit 0; }
bundle=$1; out=$2; seconds=$3; code=$4
echo "started $$"
ls "$bundle" >"$out/seen.txt"
i=0; while [ "$i" -lt "$seconds" ]; do sleep 1; i=$((i + 1)); echo "second $i"; done
[ "$code" -eq 3 ] && { echo "error: the images are wrong" >&2; echo "hint: take others" >&2; }
echo '{}' >"$out/benchmark.json"
echo private >"$out/other.txt"
exit "$code"
"""


@dataclasses.dataclass
class Place:
    """The two sides, and what was said."""

    server: Server
    bundle: Path
    tool: Path
    out: Path
    said: list[str] = dataclasses.field(default_factory=list)

    def run(self, seconds: int = 0, code: int = 0, tool: str | None = None, patience_s: float = 20) -> int:
        command = RemoteCommand(
            tool or shlex.quote(str(self.tool)),
            ["@bundle@", "@out@", str(seconds), str(code)],
            ["benchmark.json", "seen.txt", "missing.json"],
        )
        return self.run_command(command, self.said.append, patience_s=patience_s)

    def run_command(self, command: RemoteCommand, on_line: Callable[[str], None], **settings: float) -> int:
        """Run it there on the bundle."""
        server = self.server
        return run_remotely(
            server.address,
            self.bundle,
            SHA256,
            command,
            self.out,
            on_line=on_line,
            options=server.options,
            **settings,
        )


@pytest.fixture
def place(ssh_server: Server, tmp_path: Path) -> Place:
    bundle, tool = tmp_path / "bundle", tmp_path / "a tool"
    bundle.mkdir()
    (bundle / "manifest.json").write_text("{}")
    (bundle / "model.onnx").write_text("model")
    tool.write_text(TOOL)
    tool.chmod(0o755)
    return Place(ssh_server, bundle, tool, tmp_path / "results/device")


def test_the_results_come_back_and_nothing_else(place: Place) -> None:
    assert place.run() == 0
    assert sorted(path.name for path in place.out.iterdir()) == ["benchmark.json", "seen.txt"]
    assert (place.out / "seen.txt").read_text().split() == ["manifest.json", "model.onnx"]
    assert any("sending the bundle" in line for line in place.said)
    assert any(line.startswith("started") for line in place.said)
    assert not place.server.jobs()


def test_the_bundle_is_sent_once_and_whole(place: Place) -> None:
    place.run()
    place.said.clear()
    (sent,) = (place.server.cache / "dskd-compress/bundles").iterdir()
    assert sent.name == SHA256
    place.run()
    assert any("already there" in line for line in place.said)
    (sent / "manifest.json").write_text("changed there")
    place.said.clear()
    place.run()
    assert any("sending the bundle" in line for line in place.said)
    assert (sent / "manifest.json").read_text() == "{}"


def test_the_verdict_of_a_gate_brings_its_results(place: Place) -> None:
    assert place.run(code=5) == 5
    assert (place.out / "benchmark.json").is_file()


def test_a_failure_there_is_told_in_its_own_words(place: Place) -> None:
    place.out.mkdir(parents=True)
    (place.out / "old.json").write_text("old")
    with pytest.raises(RemoteFailed, match="the images are wrong take others") as failed:
        place.run(code=3)
    assert failed.value.exit_code == 3
    assert [path.name for path in place.out.iterdir()] == ["old.json"]
    assert not place.server.jobs()


def test_the_home_there_is_its_own(place: Place) -> None:
    with pytest.raises(RemoteFailed, match=f"{Path.home()}/nowhere/tool"):
        place.run(tool="~/nowhere/tool")


def test_a_tool_that_is_not_there(place: Place) -> None:
    with pytest.raises(RemoteFailed, match=r"does not run nowhere.*--remote-command"):
        place.run(tool="nowhere")


def test_a_connection_that_drops_is_made_again(place: Place) -> None:
    def say(line: str) -> None:
        place.said.append(line)
        if line == "second 1":
            place.server.stop()
        if "Retrying" in line:
            place.server.start()

    command = RemoteCommand(shlex.quote(str(place.tool)), ["@bundle@", "@out@", "4", "0"], ["benchmark.json"])
    code = run_remotely(
        place.server.address, place.bundle, SHA256, command, place.out, on_line=say, options=place.server.options
    )
    assert code == 0
    assert (place.out / "benchmark.json").is_file()
    assert "reconnected" in place.said
    # One process, and every line of it once.
    assert [line for line in place.said if line.startswith("second")] == [f"second {n}" for n in (1, 2, 3, 4)]
    assert len([line for line in place.said if line.startswith("started")]) == 1


def test_patience_ends_and_the_job_goes_on(place: Place) -> None:
    def stop(line: str) -> None:
        if line == "second 1":
            place.server.stop()

    command = RemoteCommand(shlex.quote(str(place.tool)), ["@bundle@", "@out@", "3", "0"], ["benchmark.json"])
    arguments = (place.server.address, place.bundle, SHA256, command, place.out)
    with pytest.raises(ConnectionLost, match="Run the same command again"):
        run_remotely(*arguments, on_line=stop, options=place.server.options, patience_s=0)
    assert len(place.server.jobs()) == 1
    place.server.start()
    said: list[str] = []
    assert run_remotely(*arguments, on_line=said.append, options=place.server.options) == 0
    assert [line for line in said if line.startswith("second")] == ["second 1", "second 2", "second 3"]
    assert not place.server.jobs()


def _in_a_process(place: Place, log: Path) -> None:
    class ToFile(list):  # type: ignore[type-arg]
        def append(self, line: str) -> None:
            with log.open("a") as file:
                file.write(line + "\n")

    place.said = ToFile()
    place.run(seconds=4)


def test_killed_in_the_middle_and_started_again(place: Place, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = multiprocessing.get_context("fork").Process(target=_in_a_process, args=(place, log))
    process.start()
    for _ in range(200):
        if log.exists() and "second 1" in log.read_text():
            break
        time.sleep(0.05)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    first = next(line for line in log.read_text().splitlines() if line.startswith("started"))
    assert place.run(seconds=4) == 0
    assert [line for line in place.said if line.startswith("started")] == [first], "another process was started"
    assert (place.out / "benchmark.json").is_file()
    assert not place.server.jobs()
    assert not is_alive(int(first.split()[1]))


def test_stopped_by_the_user_nothing_goes_on(place: Place) -> None:
    class Stop(BaseException):
        pass

    def say(line: str) -> None:
        place.said.append(line)
        if line == "second 1":
            raise Stop

    command = RemoteCommand(shlex.quote(str(place.tool)), ["@bundle@", "@out@", "60", "0"], ["benchmark.json"])
    with pytest.raises(Stop):
        place.run_command(command, say)
    pid = next(line for line in place.said if line.startswith("started")).split()[1]
    assert not is_alive(int(pid))
    assert not place.server.jobs()


def test_a_job_that_is_killed_twice_there_is_given_up(place: Place) -> None:
    def say(line: str) -> None:
        if line.startswith("started"):
            os.killpg(os.getpgid(int(line.split()[1])), signal.SIGKILL)

    command = RemoteCommand(shlex.quote(str(place.tool)), ["@bundle@", "@out@", "60", "0"], ["benchmark.json"])
    with pytest.raises(RemoteFailed, match="twice"):
        place.run_command(command, say)
    assert not place.server.jobs()


def test_a_job_is_known_by_bundle_and_command() -> None:
    names = {remote_run._job_name(sha, line) for sha in ("a", "b") for line in ("x y", "x")}
    assert len(names) == 4
