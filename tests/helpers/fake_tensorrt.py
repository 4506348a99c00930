"""TensorRT as its public names describe it: whatever is not in the list of a generation is an AttributeError.

The classes do what the adapters rely on. A plan is the ONNX model with a header; running one runs that model
in ONNX Runtime, on the fake CUDA's memory, so the numbers that come out are the right ones or none.
"""

from __future__ import annotations

import enum
import json
import math
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
from fake_cuda import FakeCuda
from onnx import TensorProto

MAGIC = b"FAKEPLAN"
WEAK = {"FP16", "INT8", "BF16", "FP8", "INT4", "FP4", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS"}


class World:
    """The machine that a fake TensorRT runs on.

    Attributes:
        cuda: its GPU.
        free_bytes: a workspace above this does not fit while a build runs.
        least_workspace: no kernel fits below this.
        dla_cores: it has.
        capturable: whether a CUDA graph can hold a call.
        types: what the inspector says of a layer; None: float as in the model.
    """

    def __init__(self, cuda: FakeCuda | None = None) -> None:
        self.cuda = cuda or FakeCuda()
        self.free_bytes = 8 << 30
        self.least_workspace = 0
        self.dla_cores = 0
        self.capturable = True
        self.layer_type = "Half"
        self.built: list[dict[str, Any]] = []


def make_tensorrt(api: dict[str, Any], module: str, version: str, world: World) -> ModuleType:
    """A module with exactly the names of one generation."""
    trt = ModuleType(module)
    for name in api["names"]:
        if not name.startswith("__"):
            setattr(trt, name, None)
    trt.__dict__["__version__"] = version
    for name, members in api["enums"].items():
        if name in api["names"]:
            setattr(trt, name, enum.IntEnum(name, {member: index for index, member in enumerate(members)}))
    if hasattr(trt, "EngineInvalidityDiagnostics"):
        names = api["enums"]["EngineInvalidityDiagnostics"]
        trt.EngineInvalidityDiagnostics = enum.IntFlag(  # type: ignore[attr-defined]
            "EngineInvalidityDiagnostics", {name: 1 << index for index, name in enumerate(sorted(names))}
        )
    for name, members in api["classes"].items():
        setattr(trt, name, _class(name, members, trt, world, api))
    trt.nptype = lambda dtype: _NUMPY[dtype.name]  # type: ignore[attr-defined]
    return trt


_NUMPY = {"FLOAT": np.float32, "UINT8": np.uint8, "HALF": np.float16}
_OF_ONNX = {TensorProto.FLOAT: "FLOAT", TensorProto.UINT8: "UINT8", TensorProto.FLOAT16: "HALF"}


def _class(name: str, members: list[str], trt: ModuleType, world: World, api: dict[str, Any]) -> type:
    """A class with the members of the list alone; what has no behaviour here must not be used."""
    behaviour = _BEHAVIOUR.get(name, _Nothing)
    body: dict[str, Any] = {"_trt": trt, "_world": world, "_api": api}
    for member in members:
        if not hasattr(behaviour, member):
            body[member] = property(_unexpected(name, member))

    def set_listed(self: Any, attribute: str, value: Any) -> None:
        if not attribute.startswith("_") and attribute not in members:
            raise AttributeError(f"{name} has no attribute {attribute}")
        object.__setattr__(self, attribute, value)

    for attribute in vars(behaviour):
        if not attribute.startswith("_") and attribute not in members:
            body[attribute] = property(_absent(name, attribute))
    if name not in ("ILogger", "IProfiler"):
        body["__setattr__"] = set_listed
    return type(name, (behaviour,), body)


def _unexpected(name: str, member: str) -> Any:
    def get(self: Any) -> Any:
        raise AssertionError(f"the fake {name} does not know what {member} does")

    return get


def _absent(name: str, member: str) -> Any:
    def get(self: Any) -> Any:
        raise AttributeError(f"{name} has no attribute {member}")

    return get


class _Nothing:
    pass


class _Logger:
    def __init__(self) -> None:
        pass


class _Profiler:
    def __init__(self) -> None:
        pass


class _Builder:
    def __init__(self, logger: Any) -> None:
        self._logger = logger

    @property
    def num_DLA_cores(self) -> int:
        return self._world.dla_cores

    def create_network(self, flags: int) -> Any:
        creation = self._trt.NetworkDefinitionCreationFlag
        strong = 1 << int(creation.STRONGLY_TYPED)
        if "EXPLICIT_BATCH" in creation.__members__:
            assert flags == strong, "a network of weak types"
        else:
            assert flags in (0, strong)
        return self._trt.INetworkDefinition()

    def create_builder_config(self) -> Any:
        return self._trt.IBuilderConfig()

    def create_optimization_profile(self) -> Any:
        return self._trt.IOptimizationProfile()

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        world, say = self._world, self._logger
        if config._workspace > world.free_bytes:
            say.log(self._trt.ILogger.Severity.ERROR, "Cuda Runtime (out of memory)")
            return None
        if config._workspace < world.least_workspace:
            message = "no tactics to implement the operation within workspace limit."
            say.log(self._trt.ILogger.Severity.ERROR, message)
            return None
        if not config._profiles and any(-1 in shape for shape in network._inputs.values()):
            message = "Network has dynamic or shape inputs, but no optimization profile has been defined."
            say.log(self._trt.ILogger.Severity.ERROR, message)
            return None
        flags = sorted(flag.name for flag in config._flags)
        assert not WEAK & set(flags)
        header = {
            "module": self._trt.__name__,
            "version": self._trt.__version__,
            "flags": flags,
            "profiles": [profile._shapes for profile in config._profiles],
            "capabilities": [capability.name for capability in config._capabilities],
            "stripped": "STRIP_PLAN" in flags,
            "verbosity": config.profiling_verbosity.name,
            "level": config.builder_optimization_level,
            "workspace": config._workspace,
            "cache": config._cache is not None,
            "hardware": getattr(config.hardware_compatibility_level, "name", "NONE"),
            "device": getattr(config.default_device_type, "name", "GPU"),
        }
        world.built.append(header)
        if config._cache is not None:
            config._cache._entries.add(network._digest)
        say.log(self._trt.ILogger.Severity.WARNING, "a warning\nof two lines")
        say.log(
            self._trt.ILogger.Severity.INFO,
            "[MemUsageStats] Peak memory usage of TRT CPU/GPU memory allocators: CPU 1 MiB, GPU 100 MiB",
        )
        model = b"" if header["stripped"] else network._model
        return _memory(self._trt, _plan(header, model))


def _plan(header: dict[str, Any], model: bytes) -> bytes:
    head = json.dumps(header).encode()
    return MAGIC + len(head).to_bytes(4, "little") + head + model


def read_plan(plan: bytes) -> tuple[dict[str, Any], bytes]:
    assert plan.startswith(MAGIC)
    size = int.from_bytes(plan[8:12], "little")
    return json.loads(plan[12 : 12 + size]), plan[12 + size :]


def _memory(trt: ModuleType, data: bytes) -> Any:
    memory = trt.IHostMemory()
    memory._data = data
    return memory


class _HostMemory:
    def __bytes__(self) -> bytes:
        return self._data  # type: ignore[no-any-return]


class _Network:
    def __init__(self) -> None:
        self._inputs: dict[str, tuple[int, ...]] = {}
        self._nodes: list[str] = []

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    def get_input(self, index: int) -> Any:
        tensor = self._trt.ITensor()
        tensor._name, tensor._shape = list(self._inputs.items())[index]
        return tensor

    @property
    def num_layers(self) -> int:
        return len(self._nodes)

    def get_layer(self, index: int) -> Any:
        layer = self._trt.ILayer()
        layer._name, layer._operator = self._nodes[index]
        return layer


class _Layer:
    @property
    def name(self) -> str:
        return self._name  # type: ignore[no-any-return]


class _Tensor:
    @property
    def name(self) -> str:
        return self._name  # type: ignore[no-any-return]

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape  # type: ignore[no-any-return]


class _ParserError:
    def code(self) -> Any:
        return self._code

    def node_operator(self) -> str:
        return self._operator  # type: ignore[no-any-return]

    def node_name(self) -> str:
        return self._node  # type: ignore[no-any-return]

    def desc(self) -> str:
        return self._words  # type: ignore[no-any-return]


class _Parser:
    def __init__(self, network: Any, logger: Any) -> None:
        self._network = network
        self._errors: list[Any] = []
        self._parser_flags: set[str] = set()

    def set_flag(self, flag: Any) -> None:
        self._parser_flags.add(flag.name)

    def _load(self, model: bytes) -> Any:
        try:
            return onnx.load_from_string(model)
        except Exception:
            self._fail(self._trt.ErrorCode.MODEL_DESERIALIZE_FAILED, "", "", "Failed to parse the ONNX model.")
            return None

    def _fail(self, code: Any, operator: str, node: str, words: str) -> None:
        error = self._trt.ParserError()
        error._code, error._operator, error._node, error._words = code, operator, node, words
        self._errors.append(error)

    def supports_model_v2(self, model: bytes, path: str) -> bool:
        loaded = self._load(model)
        if loaded is None:
            return False
        for node in loaded.graph.node:
            if node.op_type == "Det":
                self._fail(self._trt.ErrorCode.UNSUPPORTED_NODE, node.op_type, node.name, "false")
        return not self._errors

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]

    def parse(self, model: bytes, path: str) -> bool:
        loaded = self._load(model)
        if loaded is None:
            return False
        network = self._network
        for value in loaded.graph.input:
            dims = value.type.tensor_type.shape.dim
            network._inputs[value.name] = tuple(d.dim_value or -1 for d in dims)
        network._nodes = [(node.name, node.op_type) for node in loaded.graph.node]
        network._model = model
        network._digest = str(hash(model))
        return True


class _Profile:
    def __init__(self) -> None:
        self._shapes: dict[str, Any] = {}

    def set_shape(self, name: str, smallest: Any, best: Any, largest: Any) -> None:
        self._shapes[name] = [list(smallest), list(best), list(largest)]


class _TimingCache:
    def __init__(self) -> None:
        self._entries: set[str] = set()

    def combine(self, other: Any, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        self._entries |= other._entries
        return True

    def serialize(self) -> Any:
        return _memory(self._trt, json.dumps([self._trt.__version__, sorted(self._entries)]).encode())


class _Config:
    def __init__(self) -> None:
        self._flags = {self._trt.BuilderFlag.TF32}
        self._profiles: list[Any] = []
        self._workspace = 1 << 32
        self._capabilities: list[Any] = []
        self._cache: Any = None

    # What is set by assignment; a read of it is what was set.
    profiling_verbosity = builder_optimization_level = default_device_type = DLA_core = None
    hardware_compatibility_level = num_compute_capabilities = None

    def set_flag(self, flag: Any) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        assert pool.name == "WORKSPACE"
        self._workspace = size

    def add_optimization_profile(self, profile: Any) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def can_run_on_DLA(self, layer: Any) -> bool:
        return layer._operator in ("Conv", "Relu")

    def create_timing_cache(self, data: bytes) -> Any:
        cache = self._trt.ITimingCache()
        if data:
            version, entries = json.loads(data)
            assert version == self._trt.__version__
            cache._entries |= set(entries)
        return cache

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        self._cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._cache

    def set_compute_capability(self, capability: Any, index: int) -> bool:
        assert index < self.num_compute_capabilities
        self._capabilities.append(capability)
        return True


class _Runtime:
    engine_host_code_allowed = False

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def get_engine_validity(self, plan: bytes) -> tuple[Any, int]:
        trt = self._trt
        if not plan.startswith(MAGIC):
            return trt.EngineValidity.INVALID, int(trt.EngineInvalidityDiagnostics.MALFORMED_ENGINE)
        return trt.EngineValidity.VALID, 0

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        header = read_plan(plan)[0] if plan.startswith(MAGIC) else {}
        if "VERSION_COMPATIBLE" in header.get("flags", []) and not self.engine_host_code_allowed:
            self._logger.log(self._trt.ILogger.Severity.ERROR, "Plan contains host code, which is not allowed.")
            return None
        if not plan.startswith(MAGIC) or read_plan(plan)[0]["version"] != self._trt.__version__:
            self._logger.log(self._trt.ILogger.Severity.ERROR, "Version tag does not match.")
            return None
        engine = self._trt.ICudaEngine()
        engine._header, engine._model = read_plan(plan)
        return engine


class _Engine:
    def _graph(self) -> Any:
        return onnx.load_from_string(self._model).graph

    def _tensors(self) -> list[Any]:
        graph = self._graph()
        return [*graph.input, *graph.output]

    def _tensor(self, name: str) -> Any:
        return next(value for value in self._tensors() if value.name == name)

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors())

    def get_tensor_name(self, index: int) -> str:
        return self._tensors()[index].name  # type: ignore[no-any-return]

    def get_tensor_mode(self, name: str) -> Any:
        is_input = name in {value.name for value in self._graph().input}
        return self._trt.TensorIOMode.INPUT if is_input else self._trt.TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return self._trt.DataType[_OF_ONNX[self._tensor(name).type.tensor_type.elem_type]]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(d.dim_value or -1 for d in self._tensor(name).type.tensor_type.shape.dim)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._header["profiles"])

    def get_tensor_profile_shape(self, name: str, index: int) -> Any:
        return [tuple(shape) for shape in self._header["profiles"][index][name]]

    def get_device_memory_size_for_profile_v2(self, index: int) -> int:
        return 1000 * (index + 1)

    def create_engine_inspector(self) -> Any:
        inspector = self._trt.EngineInspector()
        inspector._engine = self
        return inspector

    def create_execution_context(self, strategy: Any) -> Any:
        assert strategy.name == "USER_MANAGED"
        assert not self._header["stripped"]
        context = self._trt.IExecutionContext()
        context._engine = self
        context._session = onnxruntime.InferenceSession(self._model, providers=["CPUExecutionProvider"])
        return context

    def create_serialization_config(self) -> Any:
        config = self._trt.ISerializationConfig()
        config._set = {"EXCLUDE_WEIGHTS"}
        return config

    def serialize_with_config(self, config: Any) -> Any:
        assert "EXCLUDE_WEIGHTS" not in config._set
        return _memory(self._trt, _plan({**self._header, "stripped": False}, self._model))


class _Inspector:
    execution_context = None

    def get_engine_information(self, layer_format: Any) -> str:
        assert layer_format.name == "JSON"
        graph = self._engine._graph()
        eleven = "ADJUST_FOR_DLA" in self._api["enums"]["OnnxParserFlag"]
        key = "Datatype" if eleven else "Format/Datatype"
        dtype = self._world.layer_type if self.execution_context is not None else "N/A due to dynamic shapes"
        layers = [
            {
                "Name": node.name,
                "LayerType": node.op_type,
                "Inputs": [{"Name": name, key: dtype} for name in node.input[:1]],
                "Outputs": [{"Name": name, key: dtype} for name in node.output],
            }
            for node in graph.node
        ]
        return json.dumps({"Layers": layers, "I/O Tensors" if eleven else "Bindings": ["input", "logits"]})


class _Context:
    profiler = None

    def __init__(self) -> None:
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._index: int | None = None
        self._scratch: tuple[int, int] | None = None

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        assert stream in self._world.cuda.streams
        self._index = index
        self._shapes.clear()
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self._engine._header["profiles"][self._index or 0][name]
        if not all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
            return False
        self._shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape = self._shapes.get(name) or self._engine.get_tensor_shape(name)
        batch = next(iter(self._shapes.values()))[0]
        return tuple(batch if size == -1 else size for size in shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def set_device_memory(self, address: int, size: int) -> None:
        assert address % 1 == 0
        self._scratch = (address, size)

    def is_stream_capturable(self, stream: int) -> bool:
        return self._world.capturable

    def execute_async_v3(self, stream: int) -> bool:
        cuda = self._world.cuda
        needed = self._engine.get_device_memory_size_for_profile_v2(self._index or 0)
        assert self._scratch is not None
        assert self._scratch[1] >= needed
        # As in CUDA: all of the call is fixed now, and done later.
        engine, session, scratch = self._engine, self._session, self._scratch
        shapes = {name: self.get_tensor_shape(name) for name in self._addresses}
        addresses, profiler = dict(self._addresses), self.profiler
        graph = engine._graph()

        def view(name: str) -> Any:
            dtype = np.dtype(_NUMPY[engine.get_tensor_dtype(name).name])
            size = math.prod(shapes[name]) * dtype.itemsize
            return cuda.array(addresses[name], size).view(dtype).reshape(shapes[name])

        def call() -> None:
            cuda.array(scratch[0], scratch[1])[:] = 0
            outputs = [value.name for value in graph.output]
            results = session.run(outputs, {value.name: view(value.name).copy() for value in graph.input})
            for name, result in zip(outputs, results, strict=True):
                view(name)[...] = result
            if profiler is not None:
                for node in graph.node:
                    profiler.report_layer_time(node.name, 0.5)

        cuda.add(stream, call)
        return True


class _Refitter:
    def __init__(self, engine: Any, logger: Any) -> None:
        self._engine = engine
        self._model: bytes | None = None

    def refit_cuda_engine(self) -> bool:
        self._engine._model = self._model
        return True

    def get_missing_weights(self) -> list[str]:
        return [] if self._model else ["w1"]


class _ParserRefitter:
    def __init__(self, refitter: Any, logger: Any) -> None:
        self._refitter = refitter

    num_errors = 0

    def refit_from_bytes(self, model: bytes, path: str) -> bool:
        if b"no such weights" in model:
            return False
        self._refitter._model = model
        return True

    def get_error(self, index: int) -> Any:
        raise IndexError(index)


class _Serialization:
    def set_flag(self, flag: Any) -> None:
        self._set.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self._set.discard(flag.name)


_Severity = enum.IntEnum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])
_Logger.Severity = _Severity  # type: ignore[attr-defined]

_BEHAVIOUR: dict[str, type] = {
    "ILogger": _Logger,
    "IProfiler": _Profiler,
    "Builder": _Builder,
    "IBuilderConfig": _Config,
    "INetworkDefinition": _Network,
    "ILayer": _Layer,
    "ITensor": _Tensor,
    "OnnxParser": _Parser,
    "ParserError": _ParserError,
    "IOptimizationProfile": _Profile,
    "ITimingCache": _TimingCache,
    "IHostMemory": _HostMemory,
    "Runtime": _Runtime,
    "ICudaEngine": _Engine,
    "IExecutionContext": _Context,
    "EngineInspector": _Inspector,
    "Refitter": _Refitter,
    "OnnxParserRefitter": _ParserRefitter,
    "ISerializationConfig": _Serialization,
}

__all__ = ["World", "make_tensorrt", "read_plan"]
