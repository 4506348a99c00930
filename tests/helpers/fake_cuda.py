"""A CUDA runtime whose device is this machine's memory, with cuda-bindings' names and answers.

Work on a stream is not done before somebody waits for it, so a missing wait shows. What is allocated is
counted, an address that was given back is refused, and a recorded graph holds the addresses that it was
recorded with.
"""

from __future__ import annotations

import ctypes
import enum
import time
from collections.abc import Callable
from typing import Any

import numpy as np


class cudaError_t(enum.IntEnum):  # noqa: N801
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorNoDevice = 100
    cudaErrorInvalidDevice = 101
    cudaErrorStreamCaptureInvalidated = 901


OK = cudaError_t.cudaSuccess


class cudaMemcpyKind(enum.IntEnum):  # noqa: N801
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class cudaStreamCaptureMode(enum.IntEnum):  # noqa: N801
    cudaStreamCaptureModeThreadLocal = 1


class FakeCuda:
    """Give it to `Cuda(module=...)`."""

    cudaMemcpyKind = cudaMemcpyKind
    cudaStreamCaptureMode = cudaStreamCaptureMode
    cudaStreamNonBlocking = 1

    def __init__(self, memory_bytes: int = 1 << 30, devices: int = 1) -> None:
        self.memory_bytes = memory_bytes
        self.devices = devices
        self.device: dict[int, np.ndarray[Any, Any]] = {}
        self.pinned: dict[int, np.ndarray[Any, Any]] = {}
        self.streams: dict[int, list[Callable[[], None]]] = {}
        self.recording: dict[int, list[Callable[[], None]]] = {}
        self.graphs: list[list[Callable[[], None]]] = []
        self.events: dict[int, float] = {}
        self.launched = 0
        self._next = 0

    @property
    def used_bytes(self) -> int:
        return sum(array.nbytes for array in self.device.values())

    @property
    def is_clean(self) -> bool:
        """Whether all that was made was given back."""
        return not (self.device or self.pinned or self.streams or self.graphs or self.events)

    def add(self, stream: int, work: Callable[[], None]) -> None:
        """Work on a stream: recorded, or queued until somebody waits."""
        (self.recording[stream] if stream in self.recording else self.streams[stream]).append(work)

    def array(self, address: int, size: int) -> np.ndarray[Any, Any]:
        """Device memory; only what is allocated."""
        assert any(
            start <= address and address + size <= start + array.nbytes for start, array in self.device.items()
        )
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    # --- the runtime

    def cudaSetDevice(self, device: int) -> tuple[cudaError_t]:
        return (OK if device < self.devices else cudaError_t.cudaErrorInvalidDevice,)

    def cudaMemGetInfo(self) -> tuple[cudaError_t, int, int]:
        return OK, self.memory_bytes - self.used_bytes, self.memory_bytes

    def cudaMalloc(self, size: int) -> tuple[cudaError_t, int]:
        if self.used_bytes + size > self.memory_bytes:
            return cudaError_t.cudaErrorMemoryAllocation, 0
        return OK, self._hold(self.device, size)

    def cudaMallocHost(self, size: int) -> tuple[cudaError_t, int]:
        return OK, self._hold(self.pinned, size)

    def _hold(self, where: dict[int, np.ndarray[Any, Any]], size: int) -> int:
        array = np.full(size, 0xA5, np.uint8)
        where[array.ctypes.data] = array
        return int(array.ctypes.data)

    def cudaFree(self, address: int) -> tuple[cudaError_t]:
        return (OK if self.device.pop(address, None) is not None else cudaError_t.cudaErrorInvalidValue,)

    def cudaFreeHost(self, address: int) -> tuple[cudaError_t]:
        return (OK if self.pinned.pop(address, None) is not None else cudaError_t.cudaErrorInvalidValue,)

    def cudaMemcpyAsync(self, to: int, from_: int, size: int, kind: int, stream: int) -> tuple[cudaError_t]:
        device = to if kind == cudaMemcpyKind.cudaMemcpyHostToDevice else from_

        def copy() -> None:
            self.array(device, size)
            ctypes.memmove(to, from_, size)

        self.add(stream, copy)
        return (OK,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[cudaError_t, int]:
        assert flags == self.cudaStreamNonBlocking
        self._next += 1
        self.streams[self._next] = []
        return OK, self._next

    def cudaStreamDestroy(self, stream: int) -> tuple[cudaError_t]:
        del self.streams[stream]
        return (OK,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[cudaError_t]:
        assert stream not in self.recording
        queue, self.streams[stream] = self.streams[stream], []
        for work in queue:
            work()
        return (OK,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[cudaError_t]:
        assert mode == cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.recording[stream] = []
        return (OK,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[cudaError_t, Any]:
        return OK, self.recording.pop(stream)

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[cudaError_t, Any]:
        executable = list(graph)
        self.graphs.append(executable)
        return OK, executable

    def cudaGraphDestroy(self, graph: Any) -> tuple[cudaError_t]:
        return (OK,)

    def cudaGraphLaunch(self, graph: Any, stream: int) -> tuple[cudaError_t]:
        assert any(graph is known for known in self.graphs)
        self.launched += 1
        self.streams[stream].extend(graph)
        return (OK,)

    def cudaGraphExecDestroy(self, graph: Any) -> tuple[cudaError_t]:
        self.graphs = [known for known in self.graphs if known is not graph]
        return (OK,)

    def cudaEventCreate(self) -> tuple[cudaError_t, int]:
        self._next += 1
        self.events[self._next] = float("nan")
        return OK, self._next

    def cudaEventDestroy(self, event: int) -> tuple[cudaError_t]:
        del self.events[event]
        return (OK,)

    def cudaEventRecord(self, event: int, stream: int) -> tuple[cudaError_t]:
        def passed() -> None:
            self.events[event] = time.perf_counter()

        self.add(stream, passed)
        return (OK,)

    def cudaEventElapsedTime(self, first: int, second: int) -> tuple[cudaError_t, float]:
        return OK, 1e3 * (self.events[second] - self.events[first])
