"""An engine on the GPU and its execution contexts, as every generation of TensorRT's Python API spells them.

Parents are held as long as their children live, as in common.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dskd_export import codes
from dskd_export.engine.api import Shape, Signature, Tensor
from dskd_export.engine.common import make_logger
from dskd_export.engine.log import Log, join_messages
from dskd_export.errors import EnvironmentProblem, ModelError


def _deserialize(trt: Any, logger: Any, log: Log, plan: bytes, host_code: bool) -> tuple[Any, Any]:
    """Load an engine; the runtime has to live as long as the engine.

    Raises:
        EnvironmentProblem: TensorRT does not load it.
    """
    runtime = trt.Runtime(logger)
    runtime.engine_host_code_allowed = host_code
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EnvironmentProblem(
            f"TensorRT cannot load this engine: {join_messages(log.errors)}.",
            "Build it on this machine: dskd-compress build BUNDLE",
        )
    return runtime, engine


class LoadedEngine:
    """An engine on the GPU."""

    def __init__(self, trt: Any, plan: bytes, host_code: bool) -> None:
        self._trt = trt
        self._log = Log()
        self._logger = make_logger(trt, self._log)
        self._runtime, self._engine = _deserialize(trt, self._logger, self._log, plan, host_code)

    @property
    def signature(self) -> Signature:
        """Names, types and shapes of its inputs and outputs, and its profiles."""
        trt, engine = self._trt, self._engine
        tensors = []
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name)))
            tensors.append(Tensor(name, is_input, dtype, tuple(engine.get_tensor_shape(name))))
        indices = range(engine.num_optimization_profiles)
        profiles = tuple(
            {facts.name: self._shapes(facts.name, index) for facts in tensors if facts.is_input}
            for index in indices
        )
        scratch = tuple(engine.get_device_memory_size_for_profile_v2(index) for index in indices)
        return Signature(tuple(tensors), profiles, scratch)

    def _shapes(self, name: str, index: int) -> tuple[Shape, Shape, Shape]:
        engine = self._engine
        smallest, best, largest = (tuple(shape) for shape in engine.get_tensor_profile_shape(name, index))
        return smallest, best, largest

    def layers(self, of: LoadedContext | None = None) -> str:
        """Return the inspector's JSON on all layers; with a context whose shapes are set, as they run in it."""
        trt, engine = self._trt, self._engine
        inspector = engine.create_engine_inspector()
        if of is not None:
            inspector.execution_context = of.raw
        text: str = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
        return text

    def context(self) -> LoadedContext:
        """Create an execution context."""
        return LoadedContext(self._trt, self._engine, self._log)


class LoadedContext:
    """An execution context: one call at a time, in memory that the caller provides."""

    def __init__(self, trt: Any, engine: Any, log: Log) -> None:
        self._trt = trt
        self._log = log
        self._profiler: Any = None
        context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise EnvironmentProblem(
                f"TensorRT cannot create an execution context: {join_messages(log.errors)}.",
                "Close other programs on the GPU.",
                code=codes.GPU_MEMORY,
            )
        self.raw = context

    def use_profile(self, index: int, stream: int) -> None:
        """Select an optimization profile."""
        context = self.raw
        self._expect(context.set_optimization_profile_async(index, stream), f"profile {index}")

    def set_shape(self, name: str, shape: Shape) -> None:
        """Set the shape of an input."""
        context = self.raw
        self._expect(context.set_input_shape(name, shape), f"the shape {list(shape)} of {name}")

    def shape(self, name: str) -> Shape:
        """Return the shape of a tensor, once the shapes of all inputs are set."""
        context = self.raw
        return tuple(context.get_tensor_shape(name))

    def bind(self, name: str, address: int) -> None:
        """Set the device address of a tensor."""
        context = self.raw
        self._expect(context.set_tensor_address(name, address), f"the address of {name}")

    def use_scratch(self, address: int, size_bytes: int) -> None:
        """Set the device memory for activations."""
        context = self.raw
        context.set_device_memory(address, size_bytes)

    def can_be_captured(self, stream: int) -> bool:
        """Whether the next call can be captured as a CUDA graph."""
        return True

    def enqueue(self, stream: int) -> None:
        """Enqueue one call on a stream."""
        context = self.raw
        self._expect(context.execute_async_v3(stream), "the call")

    def time_layers(self, times_ms: dict[str, float]) -> None:
        """Add the time of every layer to this, by name, from the next call on."""
        trt, context = self._trt, self.raw

        class LayerTimes(trt.IProfiler):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                trt.IProfiler.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                times_ms[layer_name] = times_ms.get(layer_name, 0.0) + ms

        self._profiler = LayerTimes()
        context.profiler = self._profiler

    def _expect(self, done: bool, what: str) -> None:
        if not done:
            raise ModelError(
                f"TensorRT refuses {what}: {join_messages(self._log.errors[-1:])}.",
                "Use the input name, type and shape in spec.json.",
            )


def refit(
    trt: Any, plan: bytes, model: bytes, path: Path, *, host_code: bool, flags: tuple[Any, ...] = ()
) -> bytes:
    """Put the weights of a model into an engine, and serialize it with them.

    Args:
        trt: TensorRT's module.
        plan: the engine, with or without weights.
        model: the ONNX file.
        path: where it lies.
        host_code: as for `Backend.open`.
        flags: of the serialization.

    Raises:
        EnvironmentProblem: TensorRT does not load the engine.
        ModelError: the engine needs other weights than the model has.
    """
    log = Log()
    logger = make_logger(trt, log)
    runtime, engine = _deserialize(trt, logger, log, plan, host_code)  # noqa: RUF059  # the runtime is kept alive
    refitter = trt.Refitter(engine, logger)
    parser_refitter = trt.OnnxParserRefitter(refitter, logger)
    if not parser_refitter.refit_from_bytes(model, str(path)) or not refitter.refit_cuda_engine():
        errors = [parser_refitter.get_error(index) for index in range(parser_refitter.num_errors)]
        missing = refitter.get_missing_weights()
        said = [*(error.desc() for error in errors), *log.errors, *(f"{name} is missing" for name in missing)]
        raise ModelError(
            f"The weights of {path.name} do not fit the engine: {join_messages(said)}.",
            "Refit with a student of the same architecture, or build a new engine.",
        )
    serialization = engine.create_serialization_config()
    serialization.clear_flag(trt.SerializationFlag.EXCLUDE_WEIGHTS)
    for flag in flags:
        serialization.set_flag(flag)
    memory = engine.serialize_with_config(serialization)
    if memory is None:
        raise EnvironmentProblem(
            f"TensorRT cannot serialize the refitted engine: {join_messages(log.errors)}.",
            "Build it again: dskd-compress build BUNDLE",
        )
    return bytes(memory)
