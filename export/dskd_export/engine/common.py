"""Build an engine with calls that every generation of TensorRT's Python API has.

Everything here is called with TensorRT's module as `trt`. Parents are held in variables as long as their
children live: TensorRT's objects do not keep them alive, and a freed one crashes the process.

API: https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from dskd_export.engine.api import BuildOptions, DlaPlacement, Failure, Plan, Refusal
from dskd_export.engine.log import Log, join_messages
from dskd_export.errors import EnvironmentProblem


@dataclass
class BuildSession:
    """TensorRT's objects of one build; none may be freed before the engine is built."""

    log: Log
    logger: Any
    builder: Any
    network: Any
    parser: Any
    config: Any
    kept: list[Any]


def make_logger(trt: Any, log: Log) -> Any:
    """Make a TensorRT logger that adds every message to `log`."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            log.add(severity.name, message)

    return Logger()


def open_session(trt: Any, network_flags: int) -> BuildSession:
    """Create the objects of a build, with an empty network.

    Raises:
        EnvironmentProblem: TensorRT cannot start here, for example without a driver.
    """
    log = Log()
    logger = make_logger(trt, log)
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # what pybind11 makes of a null pointer
        raise EnvironmentProblem(
            f"TensorRT cannot start: {join_messages(log.errors)}.",
            "Check the driver and the GPU: dskd-compress doctor",
        ) from error
    network = builder.create_network(network_flags)
    parser = trt.OnnxParser(network, logger)
    config = builder.create_builder_config()
    return BuildSession(log, logger, builder, network, parser, config, [])


def find_refusals(trt: Any, session: BuildSession, model: bytes, path: Path) -> tuple[Refusal, ...]:
    """List what the parser does not support of a model; the network stays empty."""
    parser = session.parser
    if parser.supports_model_v2(model, str(path)):
        return ()
    refusals = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        damaged = error.code() == trt.ErrorCode.MODEL_DESERIALIZE_FAILED
        refusals.append(Refusal(error.node_operator(), error.node_name(), _reason(error.desc()), damaged))
    return tuple(dict.fromkeys(refusals)) or (Refusal("", "", join_messages(session.log.errors)),)


def _reason(description: str) -> str:
    """The parser's message; for an unmet condition it is only `false`."""
    return "this parser does not support it" if description in ("", "false") else description


def parse(session: BuildSession, model: bytes, path: Path) -> Failure | None:
    """Fill the network from an ONNX file; return what went wrong."""
    parser = session.parser
    if parser.parse(model, str(path)):
        return None
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    said = "; ".join(f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors)
    return Failure("other", said or join_messages(session.log.errors))


def check_profiles(session: BuildSession, options: BuildOptions) -> Failure | None:
    """Check that every input has a valid range of shapes; a failed build would not name the input."""
    network = session.network
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        name, shape = tensor.name, tuple(tensor.shape)
        ranges = [profile[name] for profile in options.profiles if name in profile]
        if -1 in shape and not ranges:
            return Failure("profile", f"input {name} {list(shape)} has no range of shapes")
        for wanted in chain.from_iterable(ranges):
            if len(wanted) != len(shape) or any(
                size not in (-1, requested) for size, requested in zip(shape, wanted, strict=True)
            ):
                return Failure("profile", f"input {name} is always {list(shape)}, {list(wanted)} was requested")
    return None


def configure(trt: Any, session: BuildSession, options: BuildOptions) -> tuple[str, ...]:
    """Set what all generations have in common; return the names of the flags."""
    builder, config = session.builder, session.config
    # Without the names and types of layers the precision of an engine could not be checked.
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
        session.kept.append(profile)
    return tuple(flags)


def use_dla(trt: Any, session: BuildSession, core: int) -> DlaPlacement:
    """Place what a DLA supports on it and the rest on the GPU; count both.

    Raises:
        EnvironmentProblem: there is no such DLA.
    """
    builder, config, network = session.builder, session.config, session.network
    if core >= builder.num_DLA_cores:
        raise EnvironmentProblem(
            f"DLA {core} does not exist: TensorRT finds {builder.num_DLA_cores} on this device.",
            "Remove --useDLACore, or use a smaller number. Jetson Orin has DLAs, Thor has none.",
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    on_gpu = tuple(layer.name for layer in layers if not config.can_run_on_DLA(layer))
    return DlaPlacement(len(layers) - len(on_gpu), on_gpu)


def use_timing_cache(session: BuildSession, cache: bytes | None) -> None:
    """Start from the kernel timings of an earlier build.

    Raises:
        EnvironmentProblem: the cache is of another device or another version.
    """
    config = session.config
    timing_cache = config.create_timing_cache(cache or b"")
    session.kept.append(timing_cache)
    if not config.set_timing_cache(timing_cache, False):
        raise EnvironmentProblem(
            f"TensorRT refuses the timing cache: {join_messages(session.log.errors)}.",
            "Delete timing-*.cache next to the engines: it is of another device.",
        )


def timing_cache_of(session: BuildSession) -> bytes:
    """Serialize the timing cache after a build."""
    config = session.config
    timing_cache = config.get_timing_cache()
    memory = timing_cache.serialize()
    return bytes(memory)


def merge(session: BuildSession, first: bytes, second: bytes) -> bytes:
    """Merge two timing caches.

    Raises:
        EnvironmentProblem: they are of different devices or versions.
    """
    config = session.config
    timing_cache = config.create_timing_cache(first)
    other = config.create_timing_cache(second)
    if not timing_cache.combine(other, False):
        raise EnvironmentProblem(
            f"TensorRT cannot merge two timing caches: {join_messages(session.log.errors)}.",
            "Delete timing-*.cache next to the engines: it is of another device or version.",
        )
    memory = timing_cache.serialize()
    return bytes(memory)


def serialize(
    session: BuildSession, flags: tuple[str, ...], *, dla: DlaPlacement | None = None, keeps_timing_cache: bool
) -> Plan | Failure:
    """Build the engine of the network and the configuration."""
    builder, log = session.builder, session.log
    memory = builder.build_serialized_network(session.network, session.config)
    if memory is None:
        return log.failure()
    return Plan(
        data=bytes(memory),
        timing_cache=timing_cache_of(session) if keeps_timing_cache else None,
        flags=flags,
        layers=log.layers,
        gpu_peak_mb=log.gpu_peak_mb,
        dla=dla,
        warnings=log.unique_warnings(),
    )
