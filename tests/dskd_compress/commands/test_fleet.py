"""The real command on two devices: this one, and this one over a real ssh server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from device_support import make_device_bundle
from ssh_support import Server, running_server

from dskd_compress import console
from dskd_compress.cli import main
from dskd_export.bundle import open_bundle
from dskd_export.documents.base import read_document
from dskd_export.documents.benchmark import BenchmarkDocument, DevicesDocument
from dskd_export.files.folder_lock import LOCK
from dskd_export.fleet.devices import LOG

TOOL = f"{sys.executable} -m dskd_compress"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "_document_written", False)
    return make_device_bundle(tmp_path / "made")


def line_of(bundle: Path, server: Server, *devices: str, seconds: float = 0.001) -> list[str]:
    changes = ("min_iterations=10", f"min_seconds={seconds}", "max_warmup_seconds=0.01", "batches=[1]")
    return [
        *("fleet", str(bundle), "--precision", "int8", "--provider", "cpu", "--remote-command", TOOL),
        *("--ssh-config", server.options[1]),
        *(word for device in devices for word in ("--on", device)),
        *(word for change in changes for word in ("--set", f"benchmark.{change}")),
    ]


def test_two_devices_side_by_side(bundle: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*line_of(bundle, server, str(server.address), "local"), "--profile", "--out", "out"]) == 0
    document = read_document(Path("out/devices.json"), DevicesDocument)
    assert [one.address for one in document.devices] == [str(server.address), "local"]
    assert document.bundle_sha256 == open_bundle(bundle).sha256
    for one in document.devices:
        assert one.benchmark == read_document(Path("out", one.name, "benchmark.json"), BenchmarkDocument)
        assert one.benchmark is not None
        assert {row.precision for row in one.benchmark.rows} == {"int8"}
        assert [profile.precision for profile in one.benchmark.profiles] == ["int8"]
        assert one.benchmark.profiles[0].slowest
        assert Path("out", one.name, "benchmark.samples.npz").is_file()
        assert main(["report", f"out/{one.name}"]) == 0
    remote, local = (one.benchmark for one in document.devices)
    assert remote is not None
    assert local is not None
    assert remote.provenance.started_at < local.provenance.started_at
    assert "batch 1" in Path("out", document.devices[0].name, LOG).read_text()
    out = capsys.readouterr().out
    for one in document.devices:
        assert one.benchmark is not None
        assert f"{one.name}: student {one.benchmark.profiles[0].summary}" in out
    assert not server.jobs()


def test_a_device_that_fails_does_not_stop_the_others(
    bundle: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    words = line_of(bundle, server, str(server.address), "local")
    words[words.index(TOOL)] = "/nowhere/dskd-compress"
    assert main([*words, "--out", "out", "--json"]) == 4
    said = capsys.readouterr()
    assert "1 of 2 devices gave no results" in said.err
    assert "--remote-command" in said.err
    document = DevicesDocument.model_validate(json.loads(said.out.splitlines()[0]))
    assert [one.benchmark is None for one in document.devices] == [True, False]


@pytest.mark.parametrize("flag", ["--on", "--device"])
def test_the_old_flags_name_their_replacement(
    flag: str, bundle: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    words = line_of(bundle, server)
    assert main(["benchmark", *words[1:], flag, "local", "--out", "out"]) == 0
    assert f"dskd-compress fleet {bundle} --on local" in capsys.readouterr().err
    document = read_document(Path("out/devices.json"), DevicesDocument)
    assert [one.address for one in document.devices] == ["local"]


def test_a_setting_that_is_wrong_is_told_before_anything_is_sent(bundle: Path, server: Server) -> None:
    words = line_of(bundle, server, str(server.address))
    assert main([*words, "--set", "train.lr=1"]) == 2
    assert main([*words, "--set", "benchmark.batches=[0]"]) == 2
    assert main([*words, "--on", "ssh://user:secret@orin"]) == 2
    assert main(["fleet", str(bundle)]) == 2
    old = ["benchmark", *words[1:]]
    assert main([*old, "--images", "made/photos"]) == 2
    assert main(["benchmark", str(bundle), "--remote-command", TOOL]) == 2
    assert not (server.cache / "dskd-compress/jobs").exists() or not server.jobs()


def test_killed_in_the_middle_it_goes_on(bundle: Path, server: Server) -> None:
    words = [*line_of(bundle, server, str(server.address), seconds=6), "--out", "out"]
    process = subprocess.Popen([sys.executable, "-m", "dskd_compress", *words], stdout=subprocess.DEVNULL)
    for _ in range(400):
        logs = [job / "log" for job in server.jobs()]
        if logs and logs[0].exists() and "1/2 measurement" in logs[0].read_text():
            break
        assert process.poll() is None
        time.sleep(0.1)
    (job,) = server.jobs()
    began = (job / "log").stat().st_ctime_ns, (job / "lock").stat().st_ino
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [path.name for path in Path("out").iterdir()] == [LOCK]
    assert (job / "lock").stat().st_ino == began[1]
    assert main(words) == 0
    document = read_document(Path("out/devices.json"), DevicesDocument)
    assert document.devices[0].benchmark is not None
    said = Path("out", document.devices[0].name, LOG).read_text()
    assert said.count("1/2 measurement") == 1, "it was timed from the beginning again"
    assert not server.jobs()
    for _ in range(300):  # ssh keeps the connection of the killed one for 15 s
        left = [line for line in _processes() if str(server.cache) in line or server.options[1] in line]
        if not left:
            return
        time.sleep(0.1)
    raise AssertionError(left)


def _processes() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        if path.parent.name == str(os.getpid()):
            continue
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found
