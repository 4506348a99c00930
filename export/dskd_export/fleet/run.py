"""Run a command on another machine with a bundle and fetch its results; resumable at every point.

The bundle is sent once and kept there under its hash. The name of the job is a hash of the bundle and the
command: the same command line finds the job again, running or ended, and resumes from there.
"""

from __future__ import annotations

import hashlib
import shlex
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dskd_export.errors import DskdError, EnvironmentProblem, GateFailed, NotShown
from dskd_export.files.atomic import atomic_folder
from dskd_export.fleet.address import Address
from dskd_export.fleet.job import ROOT, JobStatus, RemoteJob
from dskd_export.fleet.ssh import ConnectionLost, RemoteFailed, Ssh

PATIENCE_S = 300.0
"""Time in which a lost connection is retried; the job there continues."""

_POLL_EVERY_S = 1.0
_COMPLETED = (0, GateFailed.exit_code, NotShown.exit_code)
_OWN_ERRORS = (2, 3, 4)


@dataclass(frozen=True)
class RemoteCommand:
    """A command to run on a device.

    Attributes:
        program: that starts this tool there, in the syntax of its shell, for example `~/venv/bin/dskd-compress`.
        arguments: `@bundle@` is the bundle there, `@out@` the folder of the results.
        results: files of that folder to fetch, those that exist.
    """

    program: str
    arguments: Sequence[str]
    results: Sequence[str]


def run_remotely(
    address: Address,
    bundle: Path,
    bundle_sha256: str,
    command: RemoteCommand,
    out: Path,
    *,
    on_line: Callable[[str], None],
    options: Sequence[str] = (),
    patience_s: float = PATIENCE_S,
) -> int:
    """Run a command on a device with a bundle, and put its results into a folder here.

    A dropped connection is retried. When this process is killed, the same call later resumes the same job; when
    it is stopped (Ctrl-C), or fails, the job there is ended.

    Args:
        address: of the device.
        bundle: the folder here.
        bundle_sha256: of its manifest.
        command: what runs there.
        out: gets the results, all of them or none; its former content is replaced.
        on_line: called with every line of progress and of the command's output.
        options: for ssh.
        patience_s: time in which a lost connection is retried.

    Returns:
        The command's exit code: 0, 5 where a limit is crossed, 6 where nothing is shown to pass.

    Raises:
        ConnectionLost: the device cannot be reached for longer than that.
        RemoteFailed: the command failed there; the message is its own error line.
    """
    with Ssh(address, options) as ssh:
        _check_program(ssh, command.program)
        remote_bundle = _send_once(ssh, bundle, bundle_sha256, on_line)
        words = shlex.join(remote_bundle if word == "@bundle@" else word for word in command.arguments)
        line = f"{command.program} {words}"
        job = RemoteJob(ssh, _job_name(bundle_sha256, line))
        try:
            status = _wait(job, line, on_line, patience_s)
            if status.code in _COMPLETED:
                with atomic_folder(out) as folder:
                    ssh.fetch(f"{job.folder()}/out", command.results, folder)
        except ConnectionLost:
            raise  # the job continues, and the same command finds it again
        except BaseException:
            _end(job, on_line)
            raise
        job.end()
    if status.code not in _COMPLETED:
        raise _failure(address, status)
    assert status.code is not None
    return status.code


def _check_program(ssh: Ssh, program: str) -> None:
    """Refuse a machine without the tool, which may be on the path of interactive shells only."""
    try:
        ssh.run(f"{program} --version >/dev/null")
    except RemoteFailed as error:
        raise RemoteFailed(
            f"{ssh.address} does not run {program}: {error.message.partition(': ')[2]}",
            "Install it there (pip install dskd-compress), or give its path: "
            "--remote-command /path/of/bin/dskd-compress",
        ) from error


def _send_once(ssh: Ssh, bundle: Path, sha256: str, on_line: Callable[[str], None]) -> str:
    """Send the bundle unless it is there, atomically; its folder there."""
    head = f"{ROOT}dest=$root/bundles/{sha256}\n"
    there = ssh.run(
        f'{head}umask 077; mkdir -p "$root/bundles" && printf "%s\\n" "$dest"\n'
        'if [ -d "$dest" ]; then sha256sum "$dest/manifest.json"; fi\n'
    ).splitlines()
    path = there[0]
    if len(there) > 1 and there[1].startswith(sha256):
        on_line(f"{ssh.address}: the bundle is already there")
        return path
    on_line(f"{ssh.address}: sending the bundle")
    ssh.send(bundle, f"{path}.part")
    ssh.run(f'{head}rm -rf "$dest" && mv "$dest.part" "$dest"\n')
    return path


def _job_name(bundle_sha256: str, line: str) -> str:
    return hashlib.sha256(f"{bundle_sha256} {line}".encode()).hexdigest()[:20]


def _wait(job: RemoteJob, line: str, on_line: Callable[[str], None], patience_s: float) -> JobStatus:
    """Wait for the end of the command across lost connections; its last lines are the log."""
    log = _LineBuffer(on_line)
    lost_since: float | None = None
    started, starts = False, 0
    while True:
        try:
            if not started:
                job.start(line)
                started, starts = True, starts + 1
            status = job.poll()
            if status.state in ("lost", "none"):
                # It was abandoned, or the machine was rebooted.
                if starts > 1:
                    raise RemoteFailed(
                        f"{job.address}: the command was killed there, twice.",
                        "Find what kills it, for example too little memory: dmesg",
                    )
                on_line("the command was killed there; restarting it")
                job.end()
                started = False
                continue
        except ConnectionLost as error:
            now = time.monotonic()
            if lost_since is None:
                lost_since = now
                on_line(f"{error.message} Retrying for {patience_s:g} s.")
            if now - lost_since >= patience_s:
                raise ConnectionLost(
                    f"{error.message} The command continues there for a while.",
                    "Run the same command again to resume it.",
                ) from error
            time.sleep(_POLL_EVERY_S)
            continue
        if lost_since is not None:
            on_line("reconnected")
            lost_since = None
        log.add(status.log)
        if status.state == "ended" and not status.more:
            return JobStatus(status.state, status.code, log.finish())
        if not status.more:
            time.sleep(_POLL_EVERY_S)


class _LineBuffer:
    """Reports complete lines, and keeps the last ones."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._rest = ""
        self._last_lines: deque[str] = deque(maxlen=200)

    def add(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._on_line(line)
            self._last_lines.append(line)

    def finish(self) -> str:
        if self._rest:
            self.add("\n")
        return "\n".join(self._last_lines)


def _end(job: RemoteJob, on_line: Callable[[str], None]) -> None:
    try:
        job.end()
    except DskdError as error:
        on_line(f"{error.message} The job there ends after a while.")


def _failure(address: Address, status: JobStatus) -> EnvironmentProblem:
    lines = [line for line in status.log.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    hints = [line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")]
    reason = (errors or lines or ["it printed nothing"])[-1]
    failure = RemoteFailed(f"{address}: {reason}", hints[-1] if hints else None)
    # Wrong images are as wrong there as here: the exit code is the command's own.
    failure.exit_code = status.code if status.code in _OWN_ERRORS else failure.exit_code
    return failure
