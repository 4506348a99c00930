"""One connection to a machine, through the system's ssh and rsync: its keys, its configuration, its host check.

There are no prompts (BatchMode), and the host's key is checked as ssh is configured. All calls share one
connection, which ssh keeps for a few seconds after the last of them.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType

from dskd_export.errors import EnvironmentProblem
from dskd_export.fleet.address import Address

CONNECT_TIMEOUT_S = 10
_ALIVE_INTERVAL_S, _ALIVE_COUNT = 5, 3  # a dead connection is known after 15 s
_PERSIST_S = 15
_SSH_FAILED = 255
_NOT_FOUND = 127

# Message of ssh, in lower case -> hint.
_HINTS = {
    "host key verification failed": "Connect once by hand and check the key it shows: ssh {login}",
    "permission denied": "Let ssh in without a password: ssh-copy-id {login}",
    "could not resolve hostname": "Check the name, or add it to ~/.ssh/config.",
    "connection refused": "Start the ssh server there, or give its port: ssh://{login}:PORT",
    "timed out": "Check that the machine is on and reachable from here.",
    "no route to host": "Check that the machine is on and reachable from here.",
}


class ConnectionLost(EnvironmentProblem):
    """The machine cannot be reached (any more)."""


class RemoteFailed(EnvironmentProblem):
    """The machine was reached and a command failed there."""


class Ssh:
    """A machine to run commands on. Use it as a context manager; the shared connection ends with it.

    Args:
        address: of the machine.
        options: more options for ssh, as on its command line, for example `["-F", "config"]`.

    Raises:
        EnvironmentProblem: ssh or rsync is not installed here.
    """

    def __init__(self, address: Address, options: Sequence[str] = ()) -> None:
        for program in ("ssh", "rsync"):
            if shutil.which(program) is None:
                raise EnvironmentProblem(
                    f"{program} is not installed here, and is needed to reach {address}.",
                    f"Install it, for example: apt install {'openssh-client' if program == 'ssh' else program}",
                )
        self.address = address
        # A path of a socket holds at most some 100 characters, so it lies in the system's own temporary folder.
        self._folder = tempfile.TemporaryDirectory(prefix="dskd-ssh-")
        shared = Path(self._folder.name) / "connection"
        self._ssh = [
            "ssh",
            *options,
            *("-o", "BatchMode=yes"),
            *("-o", f"ConnectTimeout={CONNECT_TIMEOUT_S}"),
            *("-o", f"ServerAliveInterval={_ALIVE_INTERVAL_S}"),
            *("-o", f"ServerAliveCountMax={_ALIVE_COUNT}"),
            *("-o", "ControlMaster=auto"),
            *("-o", f"ControlPersist={_PERSIST_S}"),
            *("-o", f"ControlPath={shared}"),
            *(() if address.port is None else ("-p", str(address.port))),
        ]

    def run(self, script: str, *, timeout_s: float = 60.0) -> str:
        """Run a script of the POSIX shell; returns its output.

        Raises:
            ConnectionLost: the machine cannot be reached.
            RemoteFailed: the script failed; the message is its last line.
        """
        return self.read(script, timeout_s=timeout_s).decode("utf-8", "replace")

    def read(self, script: str, *, timeout_s: float = 60.0) -> bytes:
        """Run a script; returns its output as bytes."""
        # As the shell's input and not as its argument, which would be quoted twice.
        return self._call([*self._ssh, "-T", self.address.login, "sh -s"], script.encode(), timeout_s)

    def send(self, folder: Path, to: str) -> None:
        """Copy a folder to a machine; `to` is an absolute path there, whose other files are deleted.

        Raises:
            ConnectionLost: the machine cannot be reached.
            RemoteFailed: rsync is not installed there, or the disk is full.
        """
        self._rsync(["--recursive", "--times", "--delete", f"{folder}/", f"{self._rsync_path(to)}/"])

    def fetch(self, folder: str, names: Sequence[str], to: Path) -> None:
        """Fetch plain files of these names from a folder there; nothing else.

        A name may have folders before it, `stages/benchmark.json`.

        Raises:
            ConnectionLost: the machine cannot be reached.
            RemoteFailed: rsync is not installed there, or fails.
        """
        folders = {f"{parent}/" for name in names for parent in PurePosixPath(name).parents if parent.name}
        chosen = [f"--include=/{name}" for name in (*sorted(folders), *names)]
        options = ["--recursive", "--times", "--no-links", "--prune-empty-dirs", *chosen, "--exclude=*"]
        self._rsync([*options, f"{self._rsync_path(folder)}/", f"{to}/"])

    def _rsync_path(self, path: str) -> str:
        host = f"[{self.address.host}]" if ":" in self.address.host else self.address.host
        return f"{host if self.address.user is None else f'{self.address.user}@{host}'}:{path}"

    def _rsync(self, arguments: Sequence[str]) -> None:
        self._call(["rsync", "--partial", "--rsh", shlex.join(self._ssh), *arguments], None, None)

    def _call(self, command: Sequence[str], stdin: bytes | None, timeout_s: float | None) -> bytes:
        try:
            done = subprocess.run(
                command,
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ConnectionLost(
                f"{self.address} did not answer within {timeout_s:g} s.", _HINTS["timed out"]
            ) from error
        if done.returncode == 0:
            return done.stdout
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = _pick_reason(lines, first=command[0] == "rsync") or f"it ended with {done.returncode}"
        reason = f"{reason.rstrip('.')}."
        lost = done.returncode == _SSH_FAILED or (command[0] == "rsync" and _is_lost(lines))
        if lost:
            hints = [hint for text, hint in _HINTS.items() if text in " ".join(lines).lower()]
            hint = hints[0] if hints else "Check the connection by hand: ssh {login}"
            raise ConnectionLost(
                f"{self.address} cannot be reached: {reason}", hint.format(login=self.address.login)
            )
        if command[0] == "rsync" and (done.returncode == _NOT_FOUND or "not found" in " ".join(lines)):
            raise RemoteFailed(f"{self.address} has no rsync: {reason}", "Install it there: apt install rsync")
        raise RemoteFailed(f"{self.address}: {reason}", f"Check by hand: ssh {self.address.login}")

    def __enter__(self) -> Ssh:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Ends the shared connection; without one ssh reports an error, which does not matter.
        subprocess.run([*self._ssh, "-O", "exit", self.address.login], capture_output=True, check=False)
        self._folder.cleanup()


def _pick_reason(lines: Sequence[str], *, first: bool) -> str:
    """The line with the reason: of a shell the last one, of rsync the first that is no summary."""
    own = [line for line in lines if line.strip() and not line.startswith(("rsync error:", "rsync: connection"))]
    return (own or list(lines) or [""])[0 if first else -1].strip()


def _is_lost(lines: Sequence[str]) -> bool:
    """Whether rsync failed because of ssh."""
    text = " ".join(lines).lower()
    return "connection unexpectedly closed" in text or any(sign in text for sign in _HINTS)
