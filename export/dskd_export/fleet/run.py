"""From a bundle here to results that were made there, resumable at every point.

The bundle is sent once and kept there under its hash. The command is a job whose name is made of the bundle and
the command: the same line again finds it, running or ended, and goes on from there.
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
from dskd_export.fleet.job import ROOT, Look, RemoteJob
from dskd_export.fleet.ssh import ConnectionLost, RemoteFailed, Ssh

PATIENCE_S = 300.0
"""How long a lost connection is tried again before the command here gives up; the job there goes on."""

_LOOK_EVERY_S = 1.0
_JUDGED = (0, GateFailed.exit_code, NotShown.exit_code)
_TYPED = (2, 3, 4)


@dataclass(frozen=True)
class RemoteCommand:
    """What is to run on a device.

    Attributes:
        program: that starts this tool there, as its shell takes it: `dskd-compress`, `~/venv/bin/dskd-compress`.
        arguments: `@bundle@` stands for the bundle there, `@out@` for the folder of the results.
        results: names of files that it writes into that folder, all of which are brought back where they exist.
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
    say: Callable[[str], None],
    options: Sequence[str] = (),
    patience_s: float = PATIENCE_S,
) -> int:
    """Run a command on a device with a bundle, and put its results into a folder here.

    A connection that drops is made again. When this process is killed, the same call later goes on with the
    same job; when it is stopped (Ctrl-C), or fails, the job there is ended.

    Args:
        address: of the device.
        bundle: the folder here.
        bundle_sha256: of its manifest.
        command: what runs there.
        out: gets the results, all of them or none; what was there is replaced.
        say: told what happens, and every line that the command says.
        options: for ssh.
        patience_s: for a connection that is lost.

    Returns:
        The command's exit code: 0, 5 where a gate failed, 6 where too little was measured for its verdict.

    Raises:
        ConnectionLost: the device cannot be reached for longer than that.
        RemoteFailed: the command failed there; the message is its own error line.
    """
    with Ssh(address, options) as ssh:
        _check_program(ssh, command.program)
        place = _send_once(ssh, bundle, bundle_sha256, say)
        words = shlex.join(place if word == "@bundle@" else word for word in command.arguments)
        line = f"{command.program} {words}"
        job = RemoteJob(ssh, _name_of(bundle_sha256, line))
        try:
            look = _wait(job, line, say, patience_s)
            if look.code in _JUDGED:
                with atomic_folder(out) as folder:
                    ssh.fetch(f"{job.folder()}/out", command.results, folder)
        except ConnectionLost:
            raise  # the job goes on, and the same command finds it again
        except BaseException:
            _end(job, say)
            raise
        job.end()
    if look.code not in _JUDGED:
        raise _failure(address, look)
    assert look.code is not None
    return look.code


def _check_program(ssh: Ssh, program: str) -> None:
    """Whether the tool is there: what puts it on the path may do so for interactive shells only."""
    try:
        ssh.run(f"{program} --version >/dev/null")
    except RemoteFailed as error:
        raise RemoteFailed(
            f"{ssh.address} does not run {program}: {error.message.partition(': ')[2]}",
            "Install it there (pip install dskd-compress), or say where it is: "
            "--remote-command /path/of/bin/dskd-compress",
        ) from error


def _send_once(ssh: Ssh, bundle: Path, sha256: str, say: Callable[[str], None]) -> str:
    """The bundle's place there; sent where it is not there yet, as a whole or not at all."""
    head = f"{ROOT}place=$root/bundles/{sha256}\n"
    there = ssh.run(
        f'{head}umask 077; mkdir -p "$root/bundles" && printf "%s\\n" "$place"\n'
        'if [ -d "$place" ]; then sha256sum "$place/manifest.json"; fi\n'
    ).splitlines()
    place = there[0]
    if len(there) > 1 and there[1].startswith(sha256):
        say(f"{ssh.address}: the bundle is there already")
        return place
    say(f"{ssh.address}: sending the bundle")
    ssh.send(bundle, f"{place}.part")
    ssh.run(f'{head}rm -rf "$place" && mv "$place.part" "$place"\n')
    return place


def _name_of(bundle_sha256: str, line: str) -> str:
    return hashlib.sha256(f"{bundle_sha256} {line}".encode()).hexdigest()[:20]


def _wait(job: RemoteJob, line: str, say: Callable[[str], None], patience_s: float) -> Look:
    """Until the command has ended, through all that happens to the connection; its last lines come as the log."""
    log = _Lines(say)
    lost_since: float | None = None
    started, starts = False, 0
    while True:
        try:
            if not started:
                job.start(line)
                started, starts = True, starts + 1
            look = job.look()
            if look.state in ("lost", "none"):
                # It was abandoned, or the machine was started anew.
                if starts > 1:
                    raise RemoteFailed(
                        f"{job.address}: the command was ended there, twice, without a word.",
                        "Look for what ends it, for example too little memory: dmesg",
                    )
                say("the command was ended there; it starts anew")
                job.end()
                started = False
                continue
        except ConnectionLost as error:
            now = time.monotonic()
            if lost_since is None:
                lost_since = now
                say(f"{error.message} Trying again for {patience_s:g} s.")
            if now - lost_since >= patience_s:
                raise ConnectionLost(
                    f"{error.message} The command goes on there for a while.",
                    "Run the same line again: it goes on where it is.",
                ) from error
            time.sleep(_LOOK_EVERY_S)
            continue
        if lost_since is not None:
            say("connected again")
            lost_since = None
        log.add(look.log)
        if look.state == "ended" and not look.more:
            return Look(look.state, look.code, log.finish())
        if not look.more:
            time.sleep(_LOOK_EVERY_S)


class _Lines:
    """Tells lines as they become whole, and keeps the last ones."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._rest = ""
        self._kept: deque[str] = deque(maxlen=200)

    def add(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._say(line)
            self._kept.append(line)

    def finish(self) -> str:
        if self._rest:
            self.add("\n")
        return "\n".join(self._kept)


def _end(job: RemoteJob, say: Callable[[str], None]) -> None:
    try:
        job.end()
    except DskdError as error:
        say(f"{error.message} The job there ends itself.")


def _failure(address: Address, look: Look) -> EnvironmentProblem:
    lines = [line for line in look.log.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    hints = [line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")]
    said = (errors or lines or ["it said nothing"])[-1]
    failure = RemoteFailed(f"{address}: {said}", hints[-1] if hints else None)
    # What is wrong with the images there is as wrong as here: the code is the command's own.
    failure.exit_code = look.code if look.code in _TYPED else failure.exit_code
    return failure
