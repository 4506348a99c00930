"""Building, as far as it is spelled the same in every generation of TensorRT's Python API.

Everything here is called with TensorRT's module as `trt`. Parents are held in variables as long as their
children live: TensorRT's objects do not keep them alive, and a freed one crashes the process.

API: https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dskd_export.engine.api import BuildOptions, DlaPlacement, Failure, Plan, Refusal
from dskd_export.engine.log import Log, words_of
from dskd_export.errors import EnvironmentProblem


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
