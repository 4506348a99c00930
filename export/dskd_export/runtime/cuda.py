"""The CUDA calls that running an engine needs, with errors by their names.

CUDA runtime API: https://docs.nvidia.com/cuda/cuda-runtime-api/. The bindings return a tuple whose first
element is the error.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dskd_export import codes
from dskd_export.errors import EnvironmentProblem, MissingExtra

_HINTS = {
    "cudaErrorMemoryAllocation": "Close other programs on the GPU, or use a smaller --batch or fewer --streams.",
    "cudaErrorNoDevice": "Check the GPU with: dskd-compress doctor",
    "cudaErrorInsufficientDriver": "Install a newer NVIDIA driver; check with: dskd-compress doctor",
    "cudaErrorInvalidDevice": "Choose another --device; list the GPUs with: dskd-compress doctor",
}
_CODES = {"cudaErrorMemoryAllocation": codes.GPU_MEMORY, "cudaErrorNoDevice": codes.GPU}
_SEE_DOCTOR = "Check the GPU and its driver: dskd-compress doctor"


def import_bindings() -> ModuleType:
    """Import cuda-bindings' runtime module, under either of its two names.

    Raises:
        MissingExtra: it is not installed.
    """
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        try:
            if importlib.util.find_spec(name) is not None:
                return importlib.import_module(name)
        except ModuleNotFoundError:  # of a parent package
            continue
    raise MissingExtra("cuda-bindings", "tensorrt")


class Cuda:
    """One CUDA device.

    Args:
        device: in CUDA's own order.
        module: cuda-bindings' runtime; None: the installed one.

    Raises:
        EnvironmentProblem: there is no such device, or its driver does not work.
        MissingExtra: cuda-bindings is not installed.
    """

    def __init__(self, device: int = 0, module: Any = None) -> None:
        self._cuda: Any = module if module is not None else import_bindings()
        self._call("cudaSetDevice", device)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the runtime and return its values; convert its errors."""
        try:
            error, *values = getattr(self._cuda, name)(*arguments)
        except RuntimeError as problem:  # the bindings did not find a CUDA library
            raise EnvironmentProblem(
                f"CUDA cannot be used: {str(problem).splitlines()[0]}.", _SEE_DOCTOR
            ) from problem
        if int(error) != 0:
            code = getattr(error, "name", str(error))
            raise EnvironmentProblem(
                f"CUDA: {name} failed with {code}.", _HINTS.get(code, _SEE_DOCTOR), code=_CODES.get(code)
            )
        if not values:
            return None
        return values[0] if len(values) == 1 else values

    def allocate(self, size_bytes: int) -> int:
        """Allocate device memory, aligned to 256 bytes; return its address."""
        return int(self._call("cudaMalloc", size_bytes))

    def release(self, address: int) -> None:
        """Free device memory."""
        self._call("cudaFree", address)

    def allocate_pinned(self, size_bytes: int) -> int:
        """Allocate pinned host memory; return its address."""
        return int(self._call("cudaMallocHost", size_bytes))

    def release_pinned(self, address: int) -> None:
        """Free pinned memory."""
        self._call("cudaFreeHost", address)

    def copy_in(self, device: int, host: int, size_bytes: int, stream: int) -> None:
        """Start a copy to the device."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", device, host, size_bytes, kind, stream)

    def copy_out(self, host: int, device: int, size_bytes: int, stream: int) -> None:
        """Start a copy from the device."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", host, device, size_bytes, kind, stream)

    def make_stream(self) -> int:
        """Create a stream that waits for no other."""
        return int(self._call("cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking))

    def destroy_stream(self, stream: int) -> None:
        """Destroy a stream."""
        self._call("cudaStreamDestroy", stream)

    def wait(self, stream: int) -> None:
        """Block until all work on a stream is done."""
        self._call("cudaStreamSynchronize", stream)

    def make_event(self) -> Any:
        """Create an event."""
        return self._call("cudaEventCreate")

    def destroy_event(self, event: Any) -> None:
        """Destroy an event."""
        self._call("cudaEventDestroy", event)

    def mark(self, event: Any, stream: int) -> None:
        """Record an event on a stream."""
        self._call("cudaEventRecord", event, stream)

    def between_ms(self, first: Any, second: Any) -> float:
        """Return the milliseconds between two completed events."""
        return float(self._call("cudaEventElapsedTime", first, second))

    def begin_capture(self, stream: int) -> None:
        """Start capturing the work on this stream."""
        self._call(
            "cudaStreamBeginCapture", stream, self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        )

    def end_capture(self, stream: int) -> Any:
        """End the capture; return the graph, ready to launch."""
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)

    def abort_capture(self, stream: int) -> None:
        """Abandon a failed capture."""
        error, *values = self._cuda.cudaStreamEndCapture(stream)
        if int(error) == 0 and values and values[0]:
            self._call("cudaGraphDestroy", values[0])

    def launch(self, graph: Any, stream: int) -> None:
        """Launch a graph."""
        self._call("cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: Any) -> None:
        """Destroy a graph."""
        self._call("cudaGraphExecDestroy", graph)


def array_at(address: int, size_bytes: int) -> NDArray[np.uint8]:
    """View host memory as an array of bytes; the memory must outlive the array."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(address))
