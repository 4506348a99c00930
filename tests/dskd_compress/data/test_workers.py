"""Workers that fail in every way a machine knows: the training ends soon, and with the cause."""

from __future__ import annotations

import ctypes
import errno
import gc
import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from dskd_compress.cli import describe
from dskd_compress.config import DataSection
from dskd_compress.data import ArraySet, DataSets, Preprocessing, TrainLoader, ValLoader, shared_memory, workers
from dskd_compress.data.shared_memory import PREFETCHED_BATCHES, check_shared_memory, estimate_batches_size
from dskd_compress.data.workers import end_workers, explain_worker_death, open_workers
from dskd_export.errors import EnvironmentProblem

CPU = torch.device("cpu")
PRE = Preprocessing((3, 32, 32), (0.5,) * 3, (0.2,) * 3, "bilinear", 1.0, "center")
_NEW_MOUNTS = 0x00020000  # CLONE_NEWNS


class Acting(Dataset[Any]):
    """64 kB a sample; from number `at` on each does something first, in the worker."""

    def __init__(self, act: Callable[[], Any], at: int = 0) -> None:
        self.act, self.at = act, at

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> Any:
        done = self.act() if index >= self.at else None
        return torch.zeros(1 << 16, dtype=torch.uint8) if done is None else done


def first(samples: list[Any]) -> Any:
    return samples[0]


def failure_of(samples: Acting, count: int = 1) -> BaseException:
    """The error of an epoch, which has to come within seconds."""
    loader = open_workers(samples, count, CPU, first, batch_size=1)
    began = time.monotonic()
    try:
        with pytest.raises((EnvironmentProblem, OSError)) as caught, explain_worker_death(count):
            list(loader)
    finally:
        end_workers(loader)
    assert time.monotonic() - began < 30
    return caught.value


def limit(kind: int, value: int) -> None:
    resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


def small_shared_memory() -> None:
    """For this process alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(_NEW_MOUNTS) == 0
    assert libc.mount(b"none", b"/", None, 0x44000, None) == 0  # MS_REC | MS_PRIVATE
    assert libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=8k") == 0


def may_mount() -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            small_shared_memory()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


FAULTS: dict[str, tuple[Callable[[], Any], str, str]] = {
    "RLIMIT_FSIZE": (lambda: limit(resource.RLIMIT_FSIZE, 1000), "limit on the size of files", "ulimit -f"),
    "RLIMIT_NOFILE": (lambda: limit(resource.RLIMIT_NOFILE, 5), "Too many open files", "ulimit -n"),
    "memory": (lambda: bytearray(1 << 62), "not enough memory", "batch_size"),
    "unpicklable": (lambda: lambda: 0, "cannot send a batch", "data.workers=0"),
    "SIGKILL": (lambda: os.kill(os.getpid(), signal.SIGKILL), "memory", "data.workers (now 1)"),
    "SIGBUS": (lambda: os.kill(os.getpid(), signal.SIGBUS), "/dev/shm", "--shm-size"),
    "SIGSEGV": (lambda: os.kill(os.getpid(), signal.SIGSEGV), "SIGSEGV", "data.workers=0"),
    "exit": (lambda: os._exit(3), "exit code 3", "data.workers=0"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_worker_that_fails_names_the_cause(name: str) -> None:
    act, cause, cure = FAULTS[name]
    failure = describe(failure_of(Acting(act, at=2)))
    assert failure.exit_code == 4
    assert cause in failure.message
    assert cure in (failure.hint or "")


def test_shared_memory_that_is_full() -> None:
    if not may_mount():
        pytest.skip("mounting a small /dev/shm takes root")
    failure = describe(failure_of(Acting(small_shared_memory), count=2))
    assert failure.exit_code == 4
    assert "/dev/shm" in failure.message
    assert "--shm-size" in (failure.hint or "")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM])
def test_what_a_worker_raises_keeps_its_number(number: int) -> None:
    def refuse() -> None:
        raise OSError(number, os.strerror(number), "photos/1.jpg")

    assert describe(failure_of(Acting(refuse))).exit_code == 4


def test_a_batch_whose_sender_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker can end after the batch was announced and before it was fetched."""
    real = workers._Batches._try_get_data
    calls: list[float] = []

    def reset(self: Any, timeout: float) -> Any:
        calls.append(timeout)
        if len(calls) > 1:
            raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        return real(self, timeout)

    monkeypatch.setattr(workers._Batches, "_try_get_data", reset)
    assert describe(failure_of(Acting(lambda: limit(resource.RLIMIT_FSIZE, 1000), at=1))).exit_code == 4


def test_a_lock_that_a_dead_worker_held_hangs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "CHECK_SECONDS", 0.2)
    loader = open_workers(Acting(lambda: None), 1, CPU, first, batch_size=1)
    iterator: Any = iter(loader)
    iterator._workers_done_event._cond.acquire()
    began = time.monotonic()
    end_workers(loader)
    assert time.monotonic() - began < 5
    assert not any(process.is_alive() for process in iterator._workers)


@pytest.mark.parametrize("what", ["Queue", "Event", "Process.start", "_set_worker_pids"])
def test_a_start_that_fails_halfway_leaves_nothing_behind(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def scarce(real: Callable[..., Any], *args: Any, **keys: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == (2 if what == "Process.start" else 1):  # of the processes, one is there already
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(*args, **keys)

    owner, name = {
        "Queue": (torch.multiprocessing, "Queue"),
        "Event": (torch.multiprocessing, "Event"),
        "Process.start": (multiprocessing.process.BaseProcess, "start"),
        "_set_worker_pids": (workers.signal_handling, "_set_worker_pids"),
    }[what]
    ignored: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: ignored.append(unraisable.exc_value))
    real = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **keys: scarce(real, *args, **keys))
    loader = open_workers(Acting(lambda: None), 2, CPU, first, batch_size=1)
    with pytest.raises(OSError, match="Too many open files"):
        iter(loader)
    gc.collect()
    assert calls == (2 if what == "Process.start" else 1)
    assert ignored == []
    assert multiprocessing.active_children() == []


def test_a_worker_that_dies_while_those_of_another_loader_end(monkeypatch: pytest.MonkeyPatch) -> None:
    loaders = [open_workers(Acting(lambda: None), 1, CPU, first, batch_size=1) for _ in range(2)]
    iterators = [iter(loader) for loader in loaders]
    processes = [process for loader in loaders for process in loader.processes]  # type: ignore[attr-defined]
    shut_down = workers._Batches._shutdown_workers
    killed: list[int] = []

    def shut_down_as_another_dies(self: Any) -> None:
        if not killed:
            (other,) = (process for process in processes if process not in self._workers)
            killed.append(other.pid)
            other.kill()
            multiprocessing.connection.wait([other.sentinel], timeout=10)
            time.sleep(0.1)  # in which the signal arrives
        shut_down(self)

    monkeypatch.setattr(workers._Batches, "_shutdown_workers", shut_down_as_another_dies)
    workers._end_all()
    assert killed
    for process in processes:
        process.join(10)
    assert not any(process.is_alive() for process in processes)
    del iterators


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "CHECK_SECONDS", 0.1)
    monkeypatch.setattr(workers, "STALL_SECONDS", 1.5)


@pytest.mark.usefixtures("impatient")
def test_a_worker_that_hangs_is_given_up() -> None:
    began = time.monotonic()
    failure = describe(failure_of(Acting(lambda: time.sleep(600), at=1)))
    assert time.monotonic() - began > 1.5
    assert failure.exit_code == 4
    assert "no batch" in failure.message


@pytest.mark.usefixtures("impatient")
def test_a_worker_that_is_as_slow_as_before_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "STALL_SECONDS", 0.0)
    batches = workers._Batches.__new__(workers._Batches)
    batches._pin_memory, batches._slowest_s, batches._workers = False, 1.0, []
    answers = [(False, None)] * 30 + [(True, "late")]

    def slow(_timeout: float) -> tuple[bool, Any]:
        time.sleep(0.01)
        return answers.pop(0)

    monkeypatch.setattr(batches, "_try_get_data", slow)
    assert batches._get_data() == "late"
    batches._slowest_s, answers[:] = 0.0, [(False, None)] * 30
    with pytest.raises(EnvironmentProblem, match="no batch"):
        batches._get_data()


def test_workers_are_born_deaf_to_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until `init_worker` has said what they do with it."""
    real = workers.init_worker

    def init(reports: Any, worker: int) -> None:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        real(reports, worker)
        after = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        stops = {signal.SIGINT, signal.SIGTERM}
        reports.send(("mask", f"{stops <= blocked} {bool(stops & after)}", None, None))

    monkeypatch.setattr(workers, "init_worker", init)
    loader = open_workers(Acting(lambda: None), 1, CPU, first, batch_size=1)
    next(iter(loader))
    assert workers.read_reports(loader.reports)[0].text == "True False"  # type: ignore[attr-defined]
    end_workers(loader)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def sets(count: int = 64) -> DataSets:
    pixels = np.zeros((count, 32, 32, 3), np.uint8)
    images = ArraySet(pixels, np.arange(count) % 2, ["a", "b"], list(map(str, range(count))))
    return DataSets("arrays", images, images)


def test_the_size_of_what_is_prefetched() -> None:
    assert estimate_batches_size(None, 8, (3, 10, 10), 2) == 8 * (2 * PREFETCHED_BATCHES + 1) * 300
    assert estimate_batches_size(20, 8, (3, 10, 10), 2) == 20 * 300
    assert estimate_batches_size(None, 8, (3, 10, 10), 0) == 0


def test_processes_on_one_machine_share_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    free = os.statvfs(tmp_path)
    needed = free.f_bavail * free.f_frsize // 2
    check_shared_memory(needed, tmp_path)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(EnvironmentProblem, match="--shm-size"):
        check_shared_memory(needed, tmp_path)
    check_shared_memory(needed, tmp_path / "there is none")


@pytest.mark.parametrize("kind", ["workers", "resident"])
def test_a_loader_without_room_is_refused_before_its_first_batch(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = os.statvfs_result((4096, 4096, 16, 16, 16, 0, 0, 0, 0, 255))  # 64 kB
    monkeypatch.setattr(shared_memory.os, "statvfs", lambda _: small)
    for count in (0, 2):
        section = DataSection(workers=count, loader=kind)
        loaders: list[Callable[[], Any]] = [
            lambda section=section: TrainLoader(sets(), section, PRE, batch_size=8, seed=0, device="cpu"),
            lambda count=count: ValLoader(
                sets(), PRE, batch_size=8, device="cpu", workers=count, resident=kind == "resident"
            ),
        ]
        for make in loaders:
            if count == 0:
                make()
            else:
                with pytest.raises(EnvironmentProblem, match=r"Shared memory.*--shm-size"):
                    make()


@pytest.fixture
def forkserver() -> Iterator[None]:
    """What Python 3.14 starts workers with."""
    multiprocessing.set_start_method("forkserver", force=True)
    yield
    multiprocessing.set_start_method("fork", force=True)
    # The server was started deaf to Ctrl-C and SIGTERM, and so would be what later tests start with it.
    multiprocessing.forkserver._forkserver._stop()


@pytest.mark.usefixtures("forkserver")
def test_workers_that_are_not_forked_give_the_same_batches() -> None:
    def batch(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        loader = TrainLoader(sets(), DataSection(workers=count), PRE, batch_size=8, seed=0, device="cpu")
        found = next(loader.epoch(0))
        loader.close()
        return found

    assert all(map(torch.equal, batch(1), batch(0)))


@pytest.mark.usefixtures("forkserver")
def test_a_source_that_cannot_be_pickled() -> None:
    failure = describe(failure_of(Acting(lambda: None)))
    assert failure.exit_code == 4
    assert "data.workers=0" in (failure.hint or "")
