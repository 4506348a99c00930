"""A real ssh server on loopback, with keys of its own, whose home for caches is a temporary folder."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dskd_export.fleet.address import Address


@dataclass
class Server:
    """What a client needs to know of it, and what it has on its disk."""

    address: Address
    options: list[str]
    cache: Path
    config: Path
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """The server and every connection that it holds: what a broken network looks like."""
        for pid in [*_children(self.process.pid), self.process.pid]:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def start(self) -> None:
        self.process = _start(self.config, self.address.port or 0)

    def jobs(self) -> list[Path]:
        return sorted((self.cache / "dskd-compress/jobs").glob("*"))


@contextlib.contextmanager
def running_server(folder: Path) -> Iterator[Server]:
    """A server whose files all lie in one folder."""
    sshd = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
    if sshd is None or shutil.which("rsync") is None:
        pytest.skip("no sshd or rsync here: apt install openssh-server rsync")
    for name in ("host", "client"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cache = folder / "cache"
    shutil.copy(folder / "client.pub", folder / "authorized")
    (folder / "authorized").chmod(0o600)
    config = folder / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        f"StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\nSetEnv XDG_CACHE_HOME={cache}\n",
        encoding="utf-8",
    )
    host_key = (folder / "host.pub").read_text(encoding="utf-8").split()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {host_key[0]} {host_key[1]}\n", encoding="utf-8")
    (folder / "ssh_config").write_text(
        f"IdentityFile {folder}/client\nIdentitiesOnly yes\nUserKnownHostsFile {folder}/known\n"
        "GlobalKnownHostsFile none\nStrictHostKeyChecking yes\n",
        encoding="utf-8",
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    address = Address("127.0.0.1", getpass.getuser(), port)
    made = Server(address, ["-F", str(folder / "ssh_config")], cache, config, _start(config, port))
    try:
        yield made
    finally:
        made.stop()


def _start(config: Path, port: int) -> subprocess.Popen[bytes]:
    sshd = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
    assert sshd is not None
    process = subprocess.Popen([sshd, "-D", "-e", "-f", str(config)], stderr=subprocess.DEVNULL)
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert process.poll() is None, "the ssh server ended"
            time.sleep(0.05)
        else:
            return process
    raise AssertionError("the ssh server does not listen")


def _children(pid: int) -> list[int]:
    """All processes below one that serve a connection; what a connection started stays."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = status.read_text().partition(" (")[2].rpartition(") ")
        except OSError:
            continue
        if name.startswith("sshd") and int(rest.split()[1]) in (pid, *found):
            found.append(int(status.parent.name))
    return found


def is_alive(pid: int) -> bool:
    """Whether a process does anything yet; one that has ended may stay listed until its parent takes notice."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(") ")[2].split()[0] not in "ZX"
