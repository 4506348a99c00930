"""What goes wrong with a connection, and is said in one line."""

from __future__ import annotations

import dataclasses
import socket
import time
from pathlib import Path

import pytest
from ssh_support import Server

from dskd_export.errors import EnvironmentProblem
from dskd_export.fleet.ssh import ConnectionLost, RemoteFailed, Ssh


def test_files_there_and_back(ssh_server: Server, tmp_path: Path) -> None:
    bundle, back = tmp_path / "a bundle", tmp_path / "back"
    bundle.mkdir()
    back.mkdir()
    (bundle / "model 'x'.onnx").write_bytes(b"\0\xff" * 1000)
    (bundle / "manifest.json").write_text("{}")
    with Ssh(ssh_server.address, ssh_server.options) as ssh:
        there = f"{tmp_path}/there"
        ssh.run(f"mkdir '{there}'")
        ssh.send(bundle, there)
        assert (tmp_path / "there/model 'x'.onnx").read_bytes() == b"\0\xff" * 1000
        (tmp_path / "there/link.json").symlink_to("/etc/passwd")
        (tmp_path / "there/more.json").write_text("not requested")
        (tmp_path / "there/stages/deep").mkdir(parents=True)
        (tmp_path / "there/stages/deep/a.json").write_text("a")
        (tmp_path / "there/stages/b.json").write_text("not requested")
        ssh.fetch(there, ["manifest.json", "link.json", "missing.json", "stages/deep/a.json", "x/none.json"], back)
        found = sorted(str(path.relative_to(back)) for path in back.rglob("*") if not path.is_dir())
        assert found == ["manifest.json", "stages/deep/a.json"]
        with pytest.raises(RemoteFailed, match="No such file"):
            ssh.fetch(f"{tmp_path}/nowhere", ["a"], back)


def test_a_script_that_fails_says_why(ssh_server: Server) -> None:
    with Ssh(ssh_server.address, ssh_server.options) as ssh:
        assert ssh.run("printf %s \"a  'b'\"") == "a  'b'"
        with pytest.raises(RemoteFailed, match="the disk is full"):
            ssh.run("echo first >&2; echo the disk is full >&2; exit 3")
        with pytest.raises(ConnectionLost, match=r"within 0\.3 s"):
            ssh.run("sleep 2", timeout_s=0.3)


def test_no_process_stays(ssh_server: Server) -> None:
    with Ssh(ssh_server.address, ssh_server.options) as ssh:
        ssh.run("true")
        control = next(word for word in ssh._ssh if word.startswith("ControlPath="))
        assert Path(control.partition("=")[2]).exists()
    for _ in range(50):
        if not any(control in _command(path) for path in Path("/proc").glob("[0-9]*/cmdline")):
            return
        time.sleep(0.1)
    raise AssertionError("the shared connection is still there")


def _command(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def test_who_cannot_be_reached(ssh_server: Server) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = dataclasses.replace(ssh_server.address, port=free.getsockname()[1])
    with (
        Ssh(closed, ssh_server.options) as ssh,
        pytest.raises(ConnectionLost, match=r"refused.*Start the ssh server"),
    ):
        ssh.run("true")


def test_a_key_that_is_not_known(ssh_server: Server, tmp_path: Path) -> None:
    options = [*ssh_server.options, "-o", f"UserKnownHostsFile={tmp_path}/none"]
    with Ssh(ssh_server.address, options) as ssh, pytest.raises(ConnectionLost, match="check the key"):
        ssh.run("true")


def test_a_key_that_is_not_let_in(ssh_server: Server) -> None:
    stranger = dataclasses.replace(ssh_server.address, user="nobody-of-that-name")
    with Ssh(stranger, ssh_server.options) as ssh, pytest.raises(ConnectionLost, match="ssh-copy-id"):
        ssh.run("true")


def test_no_ssh_here(ssh_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EnvironmentProblem, match="ssh is not installed here"):
        Ssh(ssh_server.address)
