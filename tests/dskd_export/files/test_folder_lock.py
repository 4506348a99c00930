"""One writer a folder: who comes second, what a kill leaves, and what a handed-in folder may hold."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dskd_export.errors import EnvironmentProblem
from dskd_export.files.folder_lock import LOCK, find_holder, hold_folder, refuse_links

# Holds the folder, says so, and runs a body until it is killed or its stdin ends.
HOLD = """
import os, sys, time
from pathlib import Path
from dskd_export.files.folder_lock import hold_folder
sys.argv = ["dskd-compress", "distill", "--out", "a b"]
with hold_folder(Path({folder!r}), print):
    {body}
    print("held", os.getpid(), flush=True)
    sys.stdin.read()
"""


def no_warning(text: str) -> None:
    raise AssertionError(text)


@contextmanager
def holder(folder: Path, body: str = "pass") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder, until it is killed or told to end."""
    code = HOLD.format(folder=str(folder), body=body)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"held {process.pid}\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_second_process_ends_at_once_and_names_the_first(tmp_path: Path) -> None:
    with holder(tmp_path / "run") as process:
        with pytest.raises(EnvironmentProblem) as caught, hold_folder(tmp_path / "run", no_warning):
            pass
        assert caught.value.exit_code == 4
        for part in (str(tmp_path / "run"), f"process {process.pid} ", "distill --out 'a b'", "since 20"):
            assert part in caught.value.message
        assert (tmp_path / "run" / LOCK).is_file()
        process.communicate()
        with hold_folder(tmp_path / "run", no_warning):
            pass
    assert not (tmp_path / "run").exists()  # nothing was written


def test_a_killed_process_lets_go_and_what_it_left_is_taken_over(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == process.pid
        with hold_folder(tmp_path, no_warning):
            assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_forked_worker_does_not_keep_the_lock_of_a_killed_process(tmp_path: Path) -> None:
    # The worker says that it runs: before it does, it has closed nothing yet.
    fork = (
        "ready, says = os.pipe()\n    worker = os.fork()\n"
        "    if worker == 0: os.write(says, b'.'); time.sleep(60)\n"
        "    os.read(ready, 1); print(worker, flush=True)"
    )
    code = HOLD.format(folder=str(tmp_path), body=fork)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    try:
        assert process.stdout.readline().startswith("held")
        with pytest.raises(EnvironmentProblem, match="in use"), hold_folder(tmp_path, no_warning):
            pass  # the worker's copy is closed, and the lock is still the parent's
        process.kill()
        process.wait()
        os.kill(worker, 0)  # it lives
        with hold_folder(tmp_path, no_warning):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        process.stdout.close()
        assert process.stdin is not None
        process.stdin.close()


def test_the_same_thread_takes_it_again_and_another_does_not(tmp_path: Path) -> None:
    refused = []

    def elsewhere() -> None:
        try:
            with hold_folder(tmp_path, no_warning):
                pass
        except EnvironmentProblem as error:
            refused.append(error.message)

    with hold_folder(tmp_path, no_warning):
        with hold_folder(tmp_path / "." / "", no_warning):
            pass
        assert (tmp_path / LOCK).exists()  # the inner one has not let go of it
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert len(refused) == 1
    assert not (tmp_path / LOCK).exists()


def test_no_update_is_lost_between_processes(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from dskd_export.errors import EnvironmentProblem
from dskd_export.files.folder_lock import hold_folder
folder, counter, left = Path({str(tmp_path / "run")!r}), Path({str(tmp_path / "counter")!r}), 20
while left:
    try:
        with hold_folder(folder, print):
            counter.write_text(str(int(counter.read_text()) + 1))
            left -= 1
    except EnvironmentProblem as error:
        assert "in use" in error.message
"""
    (tmp_path / "counter").write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "counter").read_text() == "60"
    assert not (tmp_path / "run" / LOCK).exists()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_without_locks_it_warns_once_and_runs(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    warned: list[str] = []
    with hold_folder(tmp_path, warned.append), hold_folder(tmp_path, warned.append):
        (tmp_path / "result").write_text("there")
    assert len(warned) == 1
    assert "without locks" in warned[0]
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def a_link(lock: Path, victim: Path) -> None:
    lock.symlink_to(victim)


def a_hard_link(lock: Path, victim: Path) -> None:
    lock.hardlink_to(victim)


def a_pipe(lock: Path, _: Path) -> None:
    os.mkfifo(lock)


def a_folder(lock: Path, _: Path) -> None:
    lock.mkdir()


@pytest.mark.parametrize("plant", [a_link, a_hard_link, a_pipe, a_folder])
def test_a_lock_that_leads_elsewhere_is_left_alone(plant: Callable[[Path, Path], None], tmp_path: Path) -> None:
    (victim := tmp_path / "victim").write_text("mine")
    (folder := tmp_path / "run").mkdir()
    plant(folder / LOCK, victim)
    with pytest.raises(EnvironmentProblem, match="rm -r"), hold_folder(folder, no_warning):
        pass
    assert victim.read_text() == "mine"
    assert (folder / LOCK).lstat()


def test_what_a_killed_writer_left_goes_and_nothing_else(tmp_path: Path) -> None:
    mine = [".bundle.0a1b2c3d.tmp", ".teacher.fp32.0a1b2c3d.tmp.onnx", ".recipe.0a1b2c3d.tmp.yaml"]
    mine += ["stages/.train.0a1b2c3d.tmp.json", "..train.0a1b2c3d.tmp.0a1b2c3d.tmp.jsonl", ".linked.0a1b2c3d.tmp"]
    others = [
        ".bundle.tar.0a1b2c3d.tmp.gz",
        ".bundle.tmp",
        "bundle.0a1b2c3d.tmp",
        ".bundle.0a1b2c3.tmp",
        "recipe.yaml",
    ]
    (victim := tmp_path / "victim").mkdir()
    (victim / "file").write_text("mine")
    folder = tmp_path / "run"
    (folder / "stages").mkdir(parents=True)
    (folder / mine[0]).mkdir()
    (folder / mine[0] / "half").write_text("half")
    (folder / mine[-1]).symlink_to(victim)
    for name in (*mine[1:-1], *others):
        (folder / name).write_text("half")
    names = {"bundle", "teacher.fp32.onnx", "recipe.yaml", ".train.jsonl", "train.jsonl", "linked"}
    with hold_folder(folder, no_warning, names=names, folders=("stages",)):
        left = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    assert left == {"stages", LOCK, *others}
    assert (victim / "file").read_text() == "mine"


def test_a_living_writers_temporary_is_not_taken_away(tmp_path: Path) -> None:
    with holder(tmp_path):
        (tmp_path / ".bundle.0a1b2c3d.tmp").mkdir()
        with pytest.raises(EnvironmentProblem), hold_folder(tmp_path, no_warning, names={"bundle"}):
            pass
        assert (tmp_path / ".bundle.0a1b2c3d.tmp").is_dir()


@pytest.mark.parametrize("name", ["partial", "engines/orin"])
def test_a_link_in_the_place_of_a_folder_is_refused(name: str, tmp_path: Path) -> None:
    (victim := tmp_path / "victim").mkdir()
    (tmp_path / "run" / "engines").mkdir(parents=True)
    (tmp_path / "run" / name).symlink_to(victim)
    with pytest.raises(EnvironmentProblem, match=r"is a link.*rm ") as caught:
        refuse_links(tmp_path / "run", ("stages", "partial", "engines", "engines/*"))
    assert str(tmp_path / "run" / name) in caught.value.message


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with (
        pytest.raises(EnvironmentProblem, match=r"cannot be written to.*--out"),
        hold_folder(tmp_path / "file", no_warning),
    ):
        pass
    assert (tmp_path / "file").read_text() == "not a folder"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc")
@pytest.mark.parametrize("folder", ["/proc/nope", "/proc/nope/run", "/proc"])
def test_a_file_system_that_makes_no_files_is_not_in_use(folder: str) -> None:
    with pytest.raises(EnvironmentProblem, match="cannot be written to"), hold_folder(Path(folder), no_warning):
        pass


def test_who_writes_is_found_without_taking_the_lock(tmp_path: Path) -> None:
    assert find_holder(tmp_path) is None
    with holder(tmp_path) as process:
        found = find_holder(tmp_path)
        assert found is not None
        assert (found.pid, found.command) == (process.pid, "dskd-compress distill --out 'a b'")
        process.kill()
        process.wait()
        assert find_holder(tmp_path) is None  # though the file is still there
    assert (tmp_path / LOCK).is_file()
    with hold_folder(tmp_path, no_warning):
        found = find_holder(tmp_path)
        assert found is not None
        assert found.pid == os.getpid()


@pytest.mark.parametrize("host", ["here", "elsewhere"])
def test_a_lock_that_nobody_holds_is_not_believed(host: str, tmp_path: Path) -> None:
    """Its number belongs to another process now, or it came with a copy from another machine."""
    content = {
        "pid": os.getpid(),
        "host": platform.node() if host == "here" else host,
        "command": "x",
        "started": "",
    }
    (tmp_path / LOCK).write_text(json.dumps(content))
    assert find_holder(tmp_path) is None
    (tmp_path / LOCK).write_text("junk")
    assert find_holder(tmp_path) is None
