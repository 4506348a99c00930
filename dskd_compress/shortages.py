"""What a machine runs out of or lacks, found in the errors of libraries, which wrap the system's reason.

Needs no torch: the command line and the Python API ask it about any error.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import sys

from dskd_export.codes import GPU_MEMORY
from dskd_export.errors import EXTRA_OF, DskdError, EnvironmentProblem, MissingExtra
from dskd_export.files.system_faults import explain_fault

SHARED_MEMORY = "/dev/shm"
SHARED_MEMORY_HINT = (
    "Lower data.workers or train.batch_size, or give a container more with --shm-size (docker run --shm-size=1g)."
)

# What torch, ONNX Runtime, C++ and the dynamic linker say. NumPy raises a MemoryError.
_MEMORY = re.compile(
    r"can't allocate memory|cannot allocate memory|bad_alloc|bad allocation|failed to allocate memory|"
    r"failed to map segment from shared object(?!: Operation)|cannot map zero-fill pages|not enough memory",
    re.IGNORECASE,
)
# oneDNN names no reason; under a limit on memory it is this one.
_MAYBE_MEMORY = re.compile(r"could not (create|execute) a primitive")
_FILES = re.compile(r"too many open files|received \d+ items of ancdata", re.IGNORECASE)
_THREADS = re.compile(r"can't start new thread|resource temporarily unavailable|pthread_create", re.IGNORECASE)
# Python's own form, also within the traceback that a worker process hands on, and torch's.
_ERRNO = re.compile(r"\[Errno (?P<number>\d+)\] [^:\n]*(?:: '(?P<file>[^'\n]+)')?")
_TORCH_ERRNO = re.compile(r"file <(?P<file>/torch_[^>]*)>.*\((?P<number>\d+)\)")


def explain_error(error: BaseException) -> BaseException:
    """Turn an error that a user can act on into one of ours; return any other unchanged."""
    if isinstance(error, DskdError):
        return error
    workers = sys.modules.get("dskd_compress.data.workers")  # it brings torch
    error = explain_shortage(error) if workers is None else workers.explain_worker(error)
    if isinstance(error, ModuleNotFoundError) and (module := (error.name or "").split(".")[0]) in EXTRA_OF:
        return MissingExtra(module, EXTRA_OF[module])
    if isinstance(error, OSError) and (fault := explain_fault(error)) is not None:
        return EnvironmentProblem(*fault)
    torch = sys.modules.get("torch")  # where torch was never imported, it is not torch's error
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return EnvironmentProblem(
            f"The GPU is out of memory: {first_line(error)}",
            "Lower train.batch_size, or set train.precision=bf16.",
            code=GPU_MEMORY,
        )
    return error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip().splitlines() or ["no message"])[0]


def explain_shortage(error: BaseException) -> BaseException:
    """Find the shortage behind an error of any class.

    Returns:
        An `EnvironmentProblem` where memory, shared memory, threads, room in a file or a compiler is missing;
        an `OSError` with its number where a library had hidden it; any other error as it is.
    """
    if isinstance(error, MemoryError):
        return make_memory_error()
    if isinstance(error, OSError) and error.errno is not None:
        return _of_number(error.errno, error)
    if not isinstance(error, (RuntimeError, OSError, ImportError)) and type(error).__module__ == "builtins":
        return error
    if type(error).__module__.startswith(("torch._inductor", "torch._dynamo")):
        return make_compiler_error(error)
    text = str(error)
    if (found := _TORCH_ERRNO.search(text)) is not None:
        return _of_shared_memory(int(found["number"]), error)
    if (found := _ERRNO.search(text)) is not None:
        number = int(found["number"])
        return _of_number(number, OSError(number, os.strerror(number), found["file"]))
    if _FILES.search(text):
        return OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    if _THREADS.search(text):
        return _of_number(errno.EAGAIN, error)
    if _MEMORY.search(text) or (is_memory_limited() and _MAYBE_MEMORY.search(text)):
        return make_memory_error()
    return error


def make_shared_memory_error() -> EnvironmentProblem:
    """Make the error for full shared memory, through which worker processes pass batches."""
    return EnvironmentProblem(f"Shared memory ({SHARED_MEMORY}) is full.", SHARED_MEMORY_HINT)


def _of_number(number: int, error: BaseException) -> BaseException:
    if number == errno.ENOMEM:
        return make_memory_error()
    if number == errno.EAGAIN:
        return EnvironmentProblem(
            "No more processes or threads can be started.",
            "Lower data.workers, or raise the limit: ulimit -u (in a container: --pids-limit).",
        )
    return error


def _of_shared_memory(number: int, error: BaseException) -> BaseException:
    if number == errno.ENOSPC:
        return make_shared_memory_error()
    if number == errno.EFBIG:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        size = "" if limit == resource.RLIM_INFINITY else f", {limit / 1e3:,.0f} kB"
        return EnvironmentProblem(
            f"A batch of images is larger than the limit on the size of files{size}.",
            "Raise the limit: ulimit -f unlimited",
        )
    if number in (errno.EMFILE, errno.ENFILE):
        return OSError(number, os.strerror(number))
    return _of_number(number, error)


def make_compiler_error(error: BaseException) -> EnvironmentProblem:
    """Make the error for a machine on which torch.compile does not work."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    if "InvalidCxxCompiler" in reason:
        reason = "there is no C++ compiler"
    return EnvironmentProblem(
        f"train.compile: torch cannot compile on this machine: {reason}.",
        "Install a C++ compiler (apt-get install g++), or train without: --set train.compile=false",
    )


def is_memory_limited() -> bool:
    """Check whether this shell limits the address space of a process (`ulimit -v`)."""
    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def make_memory_error() -> EnvironmentProblem:
    """Make the error for exhausted memory, with the limit that applied."""
    if is_memory_limited():
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        return EnvironmentProblem(
            f"There is not enough memory: a process may have {limit / 1e6:,.0f} MB (ulimit -v).",
            "Raise the limit: ulimit -v unlimited",
        )
    return EnvironmentProblem(
        "There is not enough memory.",
        "Lower train.batch_size or data.workers, or close other programs.",
    )
