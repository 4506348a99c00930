from __future__ import annotations

import errno
import resource

import pytest

from dskd_compress import shortages
from dskd_compress.cli import describe
from dskd_compress.shortages import explain_shortage
from dskd_export.errors import EnvironmentProblem


class LibraryError(Exception):
    """As ONNX Runtime's: of no class that Python has."""


IN_A_WORKER = (
    "Caught {kind} in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
    '  File "x.py", line 1, in f\n{kind}: {text}\n'
)
# What each library really says, and the word by which a person finds the limit.
SAID: list[tuple[BaseException, str]] = [
    (MemoryError(), "memory"),
    (MemoryError("Unable to allocate 2.00 TiB for an array"), "memory"),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
    (
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
            "you tried to allocate 524288 bytes. Error code 12 (Cannot allocate memory)"
        ),
        "memory",
    ),
    (RuntimeError("std::bad_alloc"), "memory"),
    (LibraryError("[ONNXRuntimeError] : 6 : bad allocation"), "memory"),
    (LibraryError("Failed to allocate memory for requested buffer of size 9437184"), "memory"),
    (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "memory"),
    (RuntimeError("unable to mmap 4096 bytes from file <x>: Cannot allocate memory (12)"), "memory"),
    (RuntimeError(IN_A_WORKER.format(kind="RuntimeError", text="std::bad_alloc")), "memory"),
    (RuntimeError("can't start new thread"), "ulimit -u"),
    (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "ulimit -u"),
    (OSError(IN_A_WORKER.format(kind="OSError", text="[Errno 24] Too many open files: 'a.jpg'")), "ulimit -n"),
    (RuntimeError("received 0 items of ancdata"), "ulimit -n"),
    (RuntimeError("Too many open files. Communication with the workers is no longer possible."), "ulimit -n"),
    (
        RuntimeError(
            "unable to open shared memory object </torch_1_2_3> in read-write mode: Too many open files (24)"
        ),
        "ulimit -n",
    ),
    (
        RuntimeError(
            "unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)"
        ),
        "--shm-size",
    ),
    (
        RuntimeError("unable to resize file </torch_1_2_3> to the right size: File too large (27)"),
        "ulimit -f",
    ),
]


@pytest.mark.parametrize(("error", "word"), SAID, ids=lambda value: str(value)[:40])
def test_a_shortage_is_the_machines(error: BaseException, word: str) -> None:
    failure = describe(error)
    assert failure.exit_code == 4
    assert word in f"{failure.message} {failure.hint}"
    assert failure.hint


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("could not create a primitive"),
        ImportError("x.so: failed to map segment from shared object: Operation not permitted"),
        KeyError("bad_alloc"),
        LibraryError("no such node"),
    ],
    ids=str,
)
def test_other_errors_stay_what_they_are(error: BaseException) -> None:
    assert explain_shortage(error) is error


def test_a_limit_on_memory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = resource.getrlimit
    limits = {resource.RLIMIT_AS: (2_000_000_000, -1)}
    monkeypatch.setattr(shortages.resource, "getrlimit", lambda kind: limits.get(kind) or real(kind))
    for error in (MemoryError(), RuntimeError("could not create a primitive")):
        found = explain_shortage(error)
        assert isinstance(found, EnvironmentProblem)
        assert "2,000 MB" in found.message
        assert "ulimit -v" in (found.hint or "")
