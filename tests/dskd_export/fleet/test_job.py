"""Jobs on a real ssh server."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ssh_support import Server

from dskd_export.errors import EnvironmentProblem
from dskd_export.fleet.job import JobStatus, RemoteJob
from dskd_export.fleet.ssh import RemoteFailed, Ssh


def until(poll: Callable[[], JobStatus], *states: str) -> list[JobStatus]:
    seen = []
    for _ in range(100):
        seen.append(poll())
        if seen[-1].state in states:
            return seen
        time.sleep(0.1)
    raise AssertionError(seen)


def processes_with(text: str) -> list[str]:
    done = subprocess.run(["pgrep", "-af", text], capture_output=True, text=True, check=False)
    return [line for line in done.stdout.splitlines() if "pgrep" not in line]


def test_a_command_and_what_it_said(ssh_server: Server) -> None:
    with Ssh(ssh_server.address, ssh_server.options) as ssh:
        job = RemoteJob(ssh, "one")
        assert job.poll().state == "none"
        job.start("echo 'größer'; echo b >&2; echo x > @out@/made; exit 7")
        seen = until(job.poll, "ended")
        assert seen[-1].code == 7
        assert "".join(status.log for status in seen) == "größer\nb\n"
        assert Path(job.folder(), "out/made").read_text() == "x\n"
        assert job.poll() == JobStatus("ended", 7, "")
        job.end()
        assert job.poll().state == "none"
    assert not ssh_server.jobs()


def test_a_second_client_meets_the_same_job(ssh_server: Server) -> None:
    command = "echo begun; sleep 2; echo done"
    with Ssh(ssh_server.address, ssh_server.options) as first:
        RemoteJob(first, "two").start(command)
    with Ssh(ssh_server.address, ssh_server.options) as second:
        job = RemoteJob(second, "two")
        job.start(command)
        seen = until(job.poll, "ended")
        assert "".join(status.log for status in seen) == "begun\ndone\n"
        job.start(command)  # it has ended: nothing is started
        assert job.poll().state == "ended"
        job.end()


def test_ending_ends_all_of_it(ssh_server: Server) -> None:
    with Ssh(ssh_server.address, ssh_server.options) as ssh:
        job = RemoteJob(ssh, "three")
        # A child that takes no notice of SIGTERM, and a grandchild.
        job.start("trap '' TERM; sleep 1234.5 & sleep 1234.5; sleep 1234.5")
        assert job.poll().state == "running"
        assert processes_with("sleep 1234.5")
        job.end()
    assert not processes_with("sleep 1234.5")
    assert not ssh_server.jobs()


def test_a_job_that_nobody_looks_at_ends_itself(ssh_server: Server) -> None:
    with Ssh(ssh_server.address, ssh_server.options) as ssh:
        job = RemoteJob(ssh, "four", limit_s=1)
        job.start("sleep 1234.6")
        for _ in range(100):
            if not processes_with("sleep 1234.6"):
                break
            time.sleep(0.1)
        assert not processes_with("sleep 1234.6")
        assert until(job.poll, "lost")[-1].state == "lost"
        job.end()


def test_a_supervisor_that_is_killed_is_seen(ssh_server: Server) -> None:
    with Ssh(ssh_server.address, ssh_server.options) as ssh:
        job = RemoteJob(ssh, "five")
        job.start("sleep 1234.7")
        (sleeper,) = (int(line.split()[0]) for line in processes_with("^sleep 1234.7"))
        os.killpg(os.getpgid(sleeper), signal.SIGKILL)
        assert until(job.poll, "lost")
        job.end()


def test_a_long_log_comes_in_parts(ssh_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dskd_export.fleet.job._LOG_BYTES", 7)
    with Ssh(ssh_server.address, ssh_server.options) as ssh:
        job = RemoteJob(ssh, "six")
        job.start("printf 'ä%.0s' 1 2 3 4 5 6 7 8 9 0")
        said = ""
        while (status := job.poll()).state != "ended" or status.more:
            said += status.log
        assert said + status.log == "ä" * 10
        job.end()


def test_a_shell_that_talks_is_refused(ssh_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ssh(ssh_server.address, ssh_server.options) as ssh:
        monkeypatch.setattr(ssh, "read", lambda script: b"Welcome!")
        with pytest.raises(EnvironmentProblem, match="POSIX shell"):
            RemoteJob(ssh, "seven").poll()


def test_a_tool_that_is_missing_there(ssh_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dskd_export.fleet.job.ROOT", "PATH=/nowhere\n" + "root=/tmp\n")
    with (
        Ssh(ssh_server.address, ssh_server.options) as ssh,
        pytest.raises(RemoteFailed, match="setsid is not installed there"),
    ):
        RemoteJob(ssh, "eight").start("true")
