"""What is spelled the same in every generation of TensorRT's Python API.

Everything here is called with TensorRT's module as `trt`. Parents are held in variables as long as their
children live: TensorRT's objects do not keep them alive, and a freed one crashes the process.

API: https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dskd_export.engine.api import (
    BuildOptions,
    Context,
    DlaPlacement,
    Failure,
    Plan,
    Refusal,
    Shape,
    Signature,
    Tensor,
)
from dskd_export.engine.log import Log, words_of
from dskd_export.errors import EnvironmentProblem, ModelError


@dataclass
class Bench:
    """What one build works with; nothing of it may be freed before the engine is there."""

    log: Log
    logger: Any
    builder: Any
    network: Any
    parser: Any
    config: Any
    kept: list[Any]


def make_logger(trt: Any, log: Log) -> Any:
    """A TensorRT logger that gives every message to `log`."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            log.add(severity.name, message)

    return Logger()


def open_bench(trt: Any, network_flags: int) -> Bench:
    """Everything that a build needs, with an empty network.

    Raises:
        EnvironmentProblem: TensorRT cannot start here, as without a driver.
    """
    log = Log()
    logger = make_logger(trt, log)
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # what pybind11 makes of a null pointer
        raise EnvironmentProblem(
            f"TensorRT cannot start: {words_of(log.errors)}.",
            "Look at the driver and the GPU: dskd-compress doctor",
        ) from error
    network = builder.create_network(network_flags)
    parser = trt.OnnxParser(network, logger)
    config = builder.create_builder_config()
    return Bench(log, logger, builder, network, parser, config, [])


def refused(trt: Any, bench: Bench, model: bytes, path: Path) -> tuple[Refusal, ...]:
    """What the parser does not take of a model; nothing is put into the network."""
    parser = bench.parser
    if parser.supports_model_v2(model, str(path)):
        return ()
    refusals = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        damaged = error.code() == trt.ErrorCode.MODEL_DESERIALIZE_FAILED
        refusals.append(Refusal(error.node_operator(), error.node_name(), _reason(error.desc()), damaged))
    return tuple(dict.fromkeys(refusals)) or (Refusal("", "", words_of(bench.log.errors)),)


def _reason(description: str) -> str:
    """A parser's words; of a check that is simply not met it gives only its condition."""
    return "this parser does not have it" if description in ("", "false") else description


def parse(bench: Bench, model: bytes, path: Path) -> Failure | None:
    """Fill the network from an ONNX file; gives what went wrong."""
    parser = bench.parser
    if parser.parse(model, str(path)):
        return None
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    said = "; ".join(f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors)
    return Failure("other", said or words_of(bench.log.errors))


def check_profiles(bench: Bench, options: BuildOptions) -> Failure | None:
    """Whether every input has a range of shapes that it can have; a build would end without a word on which."""
    network = bench.network
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        name, shape = tensor.name, tuple(tensor.shape)
        ranges = [profile[name] for profile in options.profiles if name in profile]
        if -1 in shape and not ranges:
            return Failure("profile", f"input {name} {list(shape)} has no range of shapes")
        for wanted in (size for sizes in ranges for size in sizes):
            if len(wanted) != len(shape) or any(
                is_ not in (-1, asked) for is_, asked in zip(shape, wanted, strict=True)
            ):
                return Failure("profile", f"input {name} is always {list(shape)}, and {list(wanted)} is asked for")
    return None


def configure(trt: Any, bench: Bench, options: BuildOptions) -> tuple[str, ...]:
    """Set what all generations have in common; gives the names of the flags."""
    builder, config = bench.builder, bench.config
    # Without the names of layers and their types nobody could prove what runs in which precision.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.builder_optimization_level = options.optimization_level
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    flags = []
    if options.tf32:
        config.set_flag(trt.BuilderFlag.TF32)
        flags.append("TF32")
    else:
        config.clear_flag(trt.BuilderFlag.TF32)  # it is on by default
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        flags.append("VERSION_COMPATIBLE")
    if options.refit == "identical":
        config.set_flag(trt.BuilderFlag.REFIT_IDENTICAL)
        flags.append("REFIT_IDENTICAL")
    elif options.refit == "new-weights":
        config.set_flag(trt.BuilderFlag.REFIT)
        flags.append("REFIT")
    if options.strip:
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
        flags.append("STRIP_PLAN")
    for shapes in options.profiles:
        profile = builder.create_optimization_profile()
        for name, (smallest, best, largest) in shapes.items():
            profile.set_shape(name, smallest, best, largest)
        config.add_optimization_profile(profile)
        bench.kept.append(profile)
    return tuple(flags)


def use_dla(trt: Any, bench: Bench, core: int) -> DlaPlacement:
    """Send what can be to a DLA and the rest to the GPU; counts both.

    Raises:
        EnvironmentProblem: there is no such DLA.
    """
    builder, config, network = bench.builder, bench.config, bench.network
    if core >= builder.num_DLA_cores:
        raise EnvironmentProblem(
            f"There is no DLA {core}: TensorRT finds {builder.num_DLA_cores} of them here.",
            "Leave --dla out, or name one that is there. Of the Jetsons, Orin has DLAs and Thor has none.",
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    on_gpu = tuple(layer.name for layer in layers if not config.can_run_on_DLA(layer))
    return DlaPlacement(len(layers) - len(on_gpu), on_gpu)


def use_timing_cache(bench: Bench, cache: bytes | None) -> None:
    """Start from what an earlier build measured.

    Raises:
        EnvironmentProblem: the cache is of another device or another version.
    """
    config = bench.config
    timing_cache = config.create_timing_cache(cache or b"")
    bench.kept.append(timing_cache)
    if not config.set_timing_cache(timing_cache, False):
        raise EnvironmentProblem(
            f"TensorRT does not take the timing cache: {words_of(bench.log.errors)}.",
            "Delete the file timing-*.cache beside the engines: it is of another device.",
        )


def timing_cache_of(bench: Bench) -> bytes:
    """What is known of the times of kernels after a build."""
    config = bench.config
    timing_cache = config.get_timing_cache()
    memory = timing_cache.serialize()
    return bytes(memory)


def merge(bench: Bench, first: bytes, second: bytes) -> bytes:
    """One timing cache of two.

    Raises:
        EnvironmentProblem: they are of different devices or versions.
    """
    config = bench.config
    timing_cache = config.create_timing_cache(first)
    other = config.create_timing_cache(second)
    if not timing_cache.combine(other, False):
        raise EnvironmentProblem(
            f"TensorRT does not join two timing caches: {words_of(bench.log.errors)}.",
            "Delete the file timing-*.cache beside the engines: it is of another device or version.",
        )
    memory = timing_cache.serialize()
    return bytes(memory)


def serialize(
    bench: Bench, flags: tuple[str, ...], *, dla: DlaPlacement | None = None, keeps_timing_cache: bool
) -> Plan | Failure:
    """Build what the network and the configuration say."""
    builder, log = bench.builder, bench.log
    memory = builder.build_serialized_network(bench.network, bench.config)
    if memory is None:
        return log.failure()
    return Plan(
        data=bytes(memory),
        timing_cache=timing_cache_of(bench) if keeps_timing_cache else None,
        flags=flags,
        layers=log.layers,
        gpu_peak_mb=log.gpu_peak_mb,
        dla=dla,
        warnings=log.unique_warnings(),
    )


class LoadedEngine:
    """An engine on the GPU."""

    def __init__(self, trt: Any, plan: bytes) -> None:
        self._trt = trt
        self._log = Log()
        self._logger = make_logger(trt, self._log)
        runtime = trt.Runtime(self._logger)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EnvironmentProblem(
                f"TensorRT does not load this engine: {words_of(self._log.errors)}.",
                "Build it on this machine: dskd-compress build",
            )
        self._runtime, self._engine = runtime, engine

    @property
    def signature(self) -> Signature:
        """What it takes and gives."""
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

    def layers(self, of: Context | None = None) -> str:
        """The inspector's JSON on all layers; of a context whose shapes are set, with the types in it."""
        trt, engine = self._trt, self._engine
        inspector = engine.create_engine_inspector()
        if isinstance(of, LoadedContext):
            inspector.execution_context = of.raw
        text: str = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
        return text

    def context(self) -> LoadedContext:
        """A new execution context."""
        return LoadedContext(self._trt, self._engine, self._log)


class LoadedContext:
    """One execution at a time of an engine, in memory that the caller gives."""

    def __init__(self, trt: Any, engine: Any, log: Log) -> None:
        self._trt = trt
        self._log = log
        self._profiler: Any = None
        context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise EnvironmentProblem(
                f"TensorRT cannot run this engine: {words_of(log.errors)}.", "Free memory on the GPU."
            )
        self.raw = context

    def use_profile(self, index: int, stream: int) -> None:
        """Switch to another profile."""
        context = self.raw
        self._expect(context.set_optimization_profile_async(index, stream), f"profile {index}")

    def set_shape(self, name: str, shape: Shape) -> None:
        """Say how large an input is in the next call."""
        context = self.raw
        self._expect(context.set_input_shape(name, shape), f"the shape {list(shape)} of {name}")

    def shape(self, name: str) -> Shape:
        """Shape of a tensor, once those of all inputs are set."""
        context = self.raw
        return tuple(context.get_tensor_shape(name))

    def bind(self, name: str, address: int) -> None:
        """Where a tensor lies in device memory."""
        context = self.raw
        self._expect(context.set_tensor_address(name, address), f"the address of {name}")

    def use_scratch(self, address: int, size_bytes: int) -> None:
        """Device memory for what happens between inputs and outputs."""
        context = self.raw
        context.set_device_memory(address, size_bytes)

    def can_be_captured(self, stream: int) -> bool:
        """Whether the next call can become a CUDA graph; here every one can be tried."""
        return True

    def enqueue(self, stream: int) -> None:
        """Start one call."""
        context = self.raw
        self._expect(context.execute_async_v3(stream), "the call")

    def time_layers(self, times_ms: dict[str, float]) -> None:
        """Add the times of layers to this from now on."""
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
                f"TensorRT refuses {what}: {words_of(self._log.errors[-1:])}.",
                "Feed the engine what its spec.json says.",
            )


def refit(trt: Any, plan: bytes, model: bytes, path: Path, *, flags: tuple[Any, ...] = ()) -> bytes:
    """Put the weights of a model into an engine, and serialise it with them.

    Args:
        trt: TensorRT's module.
        plan: the engine, with or without weights.
        model: the ONNX file.
        path: where it lies.
        flags: of the serialisation.

    Raises:
        EnvironmentProblem: TensorRT does not load the engine.
        ModelError: the model's weights are not those that the engine asks for.
    """
    log = Log()
    logger = make_logger(trt, log)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EnvironmentProblem(
            f"TensorRT does not load this engine: {words_of(log.errors)}.", "Build it again: dskd-compress build"
        )
    refitter = trt.Refitter(engine, logger)
    parser_refitter = trt.OnnxParserRefitter(refitter, logger)
    if not parser_refitter.refit_from_bytes(model, str(path)) or not refitter.refit_cuda_engine():
        errors = [parser_refitter.get_error(index) for index in range(parser_refitter.num_errors)]
        missing = refitter.get_missing_weights()
        said = [*(error.desc() for error in errors), *log.errors, *(f"{name} is missing" for name in missing)]
        raise ModelError(
            f"The weights of {path.name} do not fit the engine: {words_of(said)}.",
            "Refit an engine with a student of the same architecture, or build a new one.",
        )
    serialization = engine.create_serialization_config()
    serialization.clear_flag(trt.SerializationFlag.EXCLUDE_WEIGHTS)
    for flag in flags:
        serialization.set_flag(flag)
    memory = engine.serialize_with_config(serialization)
    if memory is None:
        raise EnvironmentProblem(
            f"TensorRT does not serialise the refitted engine: {words_of(log.errors)}.", "Build it again."
        )
    return bytes(memory)
