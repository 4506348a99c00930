"""Processes that decode images."""

from __future__ import annotations

import atexit
import errno
import multiprocessing
import signal
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from pickle import PicklingError
from types import FrameType
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils import signal_handling
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from dskd_compress.data.shared_memory import PREFETCHED_BATCHES
from dskd_compress.data.worker_faults import (
    IN_THIS_PROCESS,
    WORKER_ENDED,
    explain_end,
    read_reports,
    report_unsent_batches,
)
from dskd_compress.shortages import explain_shortage, make_shared_memory_error
from dskd_export.errors import EnvironmentProblem

# Seconds that a worker outlives a SIGTERM: long enough for the parent to save.
GRACE_SECONDS = 120
# No batch is given up before so many seconds, nor before so many times the slowest one: a first batch
# may come from a cold disk at the other end of a network.
STALL_SECONDS = 600.0
STALL_FACTOR = 20.0
CHECK_SECONDS = 5.0  # between two looks whether the workers live

_STOPS = (signal.SIGINT, signal.SIGTERM)
_running: weakref.WeakSet[_Loader] = weakref.WeakSet()


def open_workers(
    samples: Dataset[Any],
    workers: int,
    device: torch.device,
    collate: Callable[[Any], Any],
    *,
    seed: int = 0,
    **options: Any,
) -> DataLoader[Any]:
    """Return a loader whose processes live as long as it does, draw nothing from ours and end with us.

    Args:
        collate: samples -> batch.
        seed: of the processes' own generators, which timm's readers shuffle by.
        options: of torch's DataLoader: batches and their order.
    """
    reports, sender = multiprocessing.Pipe(duplex=False)
    loader = _Loader(
        samples,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=partial(init_worker, sender),
        persistent_workers=workers > 0,
        prefetch_factor=PREFETCHED_BATCHES if workers else None,
        pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(seed),  # leaves the global one alone
        **options,
    )
    loader.reports = reports
    end_at_exit(loader)
    return loader


class _Loader(DataLoader[Any]):
    """torch's loader, whose workers report why they fail."""

    reports: Connection | None = None

    def _get_iterator(self) -> Any:
        if self.num_workers == 0:
            return super()._get_iterator()
        try:
            with _signals_held(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Got pickle error")  # explained below
                return _Batches(self)
        except OSError as error:
            if error.errno == errno.ENOSPC and error.filename is None:  # of a semaphore
                raise make_shared_memory_error() from error
            raise
        except (TypeError, AttributeError, PicklingError) as error:
            if multiprocessing.get_start_method() == "fork":  # nothing was pickled
                raise
            raise EnvironmentProblem(
                f"The images of this source cannot be handed to another process: {error}.", IN_THIS_PROCESS
            ) from error

    @property
    def processes(self) -> list[Any]:
        """Its workers; none before the first batch."""
        return list(getattr(getattr(self, "_iterator", None), "_workers", ()))

    def unwatch(self) -> None:
        """Let its workers end without an error from here on."""
        iterator = getattr(self, "_iterator", None)
        if isinstance(iterator, _Batches):
            iterator.unwatch()


class _Batches(_MultiProcessingDataLoaderIter):
    """torch's iterator, which gives up waiting at some time."""

    # Until torch has begun to start anything: it may fail at any point of that.
    _shutdown = True
    _workers: Any = ()
    _worker_pids_set = False
    _slowest_s = 0.0
    _failed = False

    def _get_data(self) -> Any:
        try:
            return self._wait_for_data()
        except Exception:
            self._failed = True
            raise

    def _wait_for_data(self) -> Any:
        waited_s = 0.0
        while not self._pin_memory or self._pin_memory_thread.is_alive():
            began = time.monotonic()
            try:
                success, batch = self._try_get_data(CHECK_SECONDS)  # type: ignore[no-untyped-call]
            except (ConnectionError, EOFError) as error:  # a worker that ends has closed its end of a batch
                raise self._lost() from error
            # Time in which the whole process stood still, after Ctrl-Z, is nobody's fault.
            waited_s += min(time.monotonic() - began, CHECK_SECONDS)
            if success:
                self._slowest_s = max(self._slowest_s, waited_s)
                return batch
            if waited_s > max(STALL_SECONDS, STALL_FACTOR * self._slowest_s):
                for worker in self._workers:
                    worker.kill()  # one that hangs in a system call hears of nothing else
                raise EnvironmentProblem(
                    f"The processes that decode images gave no batch for {waited_s:.0f} s; the slowest "
                    f"before took {self._slowest_s:.1f} s.",
                    f"Check that the disk of data.source answers. {IN_THIS_PROCESS}",
                )
        raise self._lost()

    def _shutdown_workers(self) -> None:
        if self._shutdown:
            return
        self.unwatch()
        # A worker that died may have held a lock which torch's own shutdown would wait for, what has failed
        # once, as for want of open files, fails there again, and what was never started lacks what that needs.
        if (
            self._failed
            or not hasattr(self, "_workers_status")
            or any(worker.exitcode for worker in self._workers)
            or self._is_locked()
        ):
            self._shutdown = True
            if hasattr(self, "_pin_memory_thread"):
                self._pin_memory_thread_done_event.set()
            for worker in self._workers:
                worker.kill()
            for worker in self._workers:
                worker.join(CHECK_SECONDS)
            return
        super()._shutdown_workers()
        for worker in self._workers:
            worker.kill()  # nothing, where it has ended

    def unwatch(self) -> None:
        """Let its workers end without an error from here on."""
        if self._worker_pids_set:
            signal_handling._remove_worker_pids(id(self))  # type: ignore[attr-defined]
            self._worker_pids_set = False

    def _is_locked(self) -> bool:
        lock: Any = self._workers_done_event._cond  # type: ignore[attr-defined]
        if lock.acquire(True, CHECK_SECONDS):
            lock.release()
            return False
        return True

    def _lost(self) -> RuntimeError:
        connection.wait([worker.sentinel for worker in self._workers], timeout=1)  # for its exit code
        return RuntimeError(f"{WORKER_ENDED}) exited unexpectedly")


@contextmanager
def _signals_held() -> Iterator[None]:
    """Keep Ctrl-C and SIGTERM from processes that are just starting: they are born deaf, until `init_worker`."""
    if multiprocessing.get_start_method() != "fork":
        resource_tracker.ensure_running()  # its start would let the signals in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def init_worker(reports: Connection, _worker: int) -> None:
    """Leave Ctrl-C and SIGTERM to the parent, which saves and then ends the workers.

    Ctrl-C reaches every process of a terminal, and batch schedulers and `timeout` signal the whole
    group; a worker that died of it would stop the parent before it has saved. A second SIGTERM, or
    `GRACE_SECONDS` after the first, ends the worker, so that nothing can hang on it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _ignore_once)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
    report_unsent_batches(reports)


def _ignore_once(_signal: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.alarm(GRACE_SECONDS)


def end_at_exit(loader: _Loader) -> None:
    """See to it that the workers of a loader end before Python does.

    At exit multiprocessing sends one SIGTERM, which the workers ignore, and waits for them.
    """
    if not _running:
        atexit.unregister(_end_all)
        atexit.register(_end_all)  # the last registered is the first called
    _running.add(loader)


def end_workers(loader: DataLoader[Any]) -> None:
    """End the workers of a loader, also while someone still holds its iterator."""
    assert isinstance(loader, _Loader)
    iterator = getattr(loader, "_iterator", None)
    if iterator is not None and hasattr(iterator, "_shutdown_workers"):
        iterator._shutdown_workers()
        for worker in loader.processes:
            if worker.is_alive():  # after torch's own seconds of grace
                worker.kill()
    _running.discard(loader)


def _end_all() -> None:
    loaders = list(_running)
    # torch raises the death of any watched worker wherever the program is: here, while another loader ends.
    for loader in loaders:
        with suppress(Exception):
            loader.unwatch()
    for loader in loaders:
        with suppress(Exception):  # nobody is left to hear of it
            end_workers(loader)
        for worker in loader.processes:
            worker.kill()


@contextmanager
def explain_worker_death(workers: int) -> Iterator[None]:
    """Turn torch's report of a failed worker into one line with its cause.

    torch raises it from a signal handler, so it can surface anywhere in a training step: put the
    whole loop inside.

    Raises:
        EnvironmentProblem: a worker died, or something of the machine came to its end.
    """
    try:
        yield
    except (RuntimeError, OSError, MemoryError) as error:
        explained = explain_worker(error, workers)
        if explained is error:
            raise
        raise explained from error


def explain_worker(error: BaseException, workers: int | None = None) -> BaseException:
    """Give the cause of an error that workers brought about; any other error as it is."""
    if isinstance(error, RuntimeError) and WORKER_ENDED in str(error):
        reports = [report for one in _running if one.reports is not None for report in read_reports(one.reports)]
        processes = [process for one in _running for process in one.processes]
        return explain_end(str(error), reports, processes, workers)
    return explain_shortage(error)
