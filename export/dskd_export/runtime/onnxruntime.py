"""A Runner over ONNX Runtime: exactly the provider that was asked for, or an error."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np

from dskd_export import codes
from dskd_export.documents.precision import QUANTIZED, PrecisionMetadata
from dskd_export.engine.problems import gpu_memory_used_up
from dskd_export.errors import EnvironmentProblem, ModelError, ProviderLacksKernel, UsageError, require
from dskd_export.runtime.assignment import (
    RECORD,
    Assigned,
    can_record,
    profile_prefix,
    profiled,
    recorded,
    refuse_others,
    zeros_for,
)
from dskd_export.runtime.provider_problems import Build, Problem, problems_of
from dskd_export.runtime.providers import CPU, PROVIDERS, TENSORRT, Provider, Shape, options_of
from dskd_export.runtime.runner import Array
from dskd_export.runtime.shared_libraries import find_in, pip_folders
from dskd_export.spec import METADATA_KEY, ModelSpec
from dskd_export.telemetry.cuda import cuda_gpus
from dskd_export.telemetry.host import usable_cores

_LOG_ERRORS = 3
# What CUDA, cuDNN, TensorRT and ONNX Runtime's own arena say where the GPU's memory is used up.
_OUT_OF_MEMORY = (
    "out of memory",
    "failed to allocate memory",
    "cudaerrormemoryallocation",
    "bfcarena",
    "outofmemory",
)


def available_providers() -> tuple[str, ...]:
    """The providers that can be asked for here: in this build of ONNX Runtime, with a device there.

    Raises:
        MissingExtra: ONNX Runtime is not installed.
    """
    built = _onnxruntime().get_available_providers()
    there = [provider for provider in PROVIDERS.values() if provider.ort_name in built]
    return tuple(provider.name for provider in there if not provider.needs_gpu or cuda_gpus())


def build_of(ort: ModuleType) -> Build:
    """The ONNX Runtime that is imported."""
    folder = Path(str(ort.__file__)).parent / "capi"
    return Build(ort.__version__, tuple(ort.get_available_providers()), folder)


def read_spec(path: Path) -> ModelSpec:
    """The spec that an ONNX file carries in its metadata.

    Raises:
        BundleError: there is none, or it is not valid.
        ModelError: this is no ONNX file that ONNX Runtime can read.
        MissingExtra: ONNX Runtime is not installed.
    """
    return ModelSpec.from_metadata(_metadata_of(path), str(path))


def _metadata_of(model: Path | bytes) -> dict[str, str]:
    ort = _onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = _LOG_ERRORS
    # The graph is read and not run, so there is nothing to optimise it for.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return dict(_open(model, options, CPU, {}).get_modelmeta().custom_metadata_map)


def _is_spoilt_by_optimiser(model: Path | bytes) -> bool:
    """Whether ONNX Runtime's CPU optimiser makes another function of a quantised model, or fails on it.

    Seen with 1.32: convolutions between Q/DQ with fp16 scales give logits at chance, and a Clip before a
    QuantizeLinear to fp8 ends in an error.
    """
    made = PrecisionMetadata.from_metadata(_metadata_of(model), str(model) if isinstance(model, Path) else "model")
    return made is not None and (made.precision == "fp8" or made.rest == "fp16")


class OnnxRuntimeRunner:
    """Call an ONNX model with numpy arrays.

    Args:
        model: the ONNX file, or its content.
        provider: `cpu`, `cuda` or `tensorrt`; nothing else is used in its place.
        threads: CPU threads for one operator; None takes all cores that this process may use.
        precision: of the model's weights, for the name and the facts.
        profile: the beginning of a file name: what every kernel did is written there by `end_profile`.
        optimise: False leaves ONNX Runtime's optimiser out, as is done anyway for a quantised model that it
            is known to spoil on the CPU (fp8, and int8 beside fp16).
        allow_cpu: operators that may run on the CPU under another provider.
        shapes: input -> smallest, usual and largest shape that will be fed; TensorRT builds for these.

    Raises:
        EnvironmentProblem: the provider is not available here, or the GPU's memory is used up; or a node does
            not run on the provider, and its operator is not in `allow_cpu`.
        ModelError: the file is missing or is no model that ONNX Runtime can run.
        MissingExtra: ONNX Runtime is not installed.
        ProviderLacksKernel: the provider has no kernel for a type in the model.
        UsageError: there is no provider of that name.
    """

    def __init__(
        self,
        model: Path | bytes,
        *,
        provider: str = "cpu",
        threads: int | None = None,
        precision: str = "fp32",
        profile: Path | None = None,
        optimise: bool = True,
        allow_cpu: Sequence[str] = (),
        shapes: Mapping[str, tuple[Shape, Shape, Shape]] | None = None,
    ) -> None:
        ort = _onnxruntime()
        if threads is not None and threads < 1:
            raise UsageError(f"{threads} threads cannot run a model.", "Give at least 1, or leave threads out.")
        check_provider(provider)
        options = ort.SessionOptions()
        options.log_severity_level = _LOG_ERRORS
        if provider == "cpu" and precision in QUANTIZED and _is_spoilt_by_optimiser(model):
            optimise = False
        levels = ort.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
        # Set even where nothing was asked: ONNX Runtime's own default is the machine's cores,
        # which in a container are more than the process may use.
        options.intra_op_num_threads = threads or usable_cores()
        options.inter_op_num_threads = 1
        recording = PROVIDERS[provider].needs_gpu and can_record(ort.InferenceSession)
        if recording:
            options.add_session_config_entry(RECORD, "1")
        if profile is not None or (PROVIDERS[provider].needs_gpu and not recording):
            options.enable_profiling = True
            options.profile_file_prefix = str(profile or profile_prefix())
        wanted = PROVIDERS[provider]
        began = time.perf_counter()
        session = _open(model, options, wanted, options_of(wanted, shapes, allow_cpu))
        load_ms = (time.perf_counter() - began) * 1e3
        if wanted.needs_gpu:
            refuse_others(_assigned(session, profile), wanted, allow_cpu, lambda: _in_the_way(wanted))
        self._session: Any = session
        self._outputs = [output.name for output in session.get_outputs()]
        self._name = f"onnxruntime:{provider}:{precision}"
        self._facts: dict[str, Any] = {
            "onnxruntime": ort.__version__,
            "provider": provider,
            "providers": list(session.get_providers()),
            "threads": options.intra_op_num_threads,
            "precision": precision,
            "graph_optimization": "all" if optimise else "none",
            "load_ms": load_ms,
        }
        if provider == "cuda":
            self._facts["tf32"] = False

    @property
    def name(self) -> str:
        """For example `onnxruntime:cpu:fp32`."""
        return self._name

    @property
    def facts(self) -> Mapping[str, Any]:
        """Version, provider, threads, precision, graph optimisation, and `load_ms`."""
        return self._facts

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch; blocks until the outputs are in host memory.

        Raises:
            ModelError: the arrays do not fit the model's inputs, or the model fails on them.
        """
        if self._session is None:
            raise RuntimeError(f"{self._name} is closed")
        arrays = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        try:
            outputs = self._session.run(self._outputs, arrays)
        except Exception as error:  # ONNX Runtime's errors share no base class
            _refuse_full_gpu(error, self._name)
            raise ModelError(
                f"{self._name} cannot run on "
                f"{', '.join(f'{name} {array.dtype} {list(array.shape)}' for name, array in arrays.items())}: "
                f"{_first_line(error)}",
                "Feed it what its spec.json says.",
            ) from error
        return dict(zip(self._outputs, outputs, strict=True))

    def end_profile(self) -> Path:
        """Stop profiling and give the file that was written: JSON in Chrome's trace format."""
        return Path(self._session.end_profiling())

    def __enter__(self) -> OnnxRuntimeRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._session = None


def _onnxruntime() -> ModuleType:
    return require("onnxruntime", "onnx")


def check_provider(provider: str) -> None:
    """Ask whether a provider can run here, before any work.

    Raises:
        EnvironmentProblem: it cannot; names what is in the way, and the providers that can.
        UsageError: there is no provider of that name.
    """
    if provider not in PROVIDERS:
        raise UsageError(f"There is no provider {provider}.", f"Choose one of: {', '.join(PROVIDERS)}.")
    problems = _problems(PROVIDERS[provider])
    if problems:
        there = ", ".join(available_providers())
        raise problems[0].error(f"Provider {provider} is not available: ", f"; ONNX Runtime can use {there} here")


def _problems(provider: Provider) -> list[Problem]:
    return problems_of(provider, build_of(_onnxruntime()), cuda_gpus()) if provider.needs_gpu else []


def _in_the_way(provider: Provider) -> list[str]:
    return [problem.what for problem in _problems(provider)]


def _assigned(session: Any, profile: Path | None) -> list[Assigned]:
    """Where each node of a session runs; empty where the session is profiled for another purpose."""
    if can_record(type(session)):
        return recorded(session)
    if profile is not None:
        return []
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    feeds = zeros_for(session.get_inputs())
    if METADATA_KEY in metadata:  # its size may be open in the graph, and is not in the spec
        spec = ModelSpec.from_metadata(metadata, "the model")
        feeds = {name: np.zeros(spec.input_shape(1), array.dtype) for name, array in feeds.items()}
    return profiled(session, feeds)


@functools.cache
def _preload_tensorrt() -> None:
    """Load TensorRT from where pip puts it, as the loader would not find it there; the order is that of needs."""
    for name in ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10"):
        file = find_in(pip_folders(), name)
        if file is not None:
            with contextlib.suppress(OSError):  # told by `problems_of`
                ctypes.CDLL(str(file), mode=ctypes.RTLD_GLOBAL)


def _open(model: Path | bytes, options: Any, provider: Provider, settings: Mapping[str, str]) -> Any:
    """An InferenceSession on the provider and, for what it cannot run, the CPU: never on the CPU alone."""
    ort = _onnxruntime()
    where = str(model) if isinstance(model, Path) else "the model"
    if isinstance(model, Path) and not model.is_file():
        raise ModelError(f"{model}: no such file.", "Export the model first.")
    if provider.needs_gpu and hasattr(ort, "preload_dlls"):
        # Finds CUDA and cuDNN where pip put them; it prints, and stdout belongs to the result.
        with contextlib.redirect_stdout(sys.stderr):
            ort.preload_dlls()
    if provider is TENSORRT:
        _preload_tensorrt()
    try:
        session = ort.InferenceSession(
            str(model) if isinstance(model, Path) else model,
            sess_options=options,
            providers=[(provider.ort_name, dict(settings))],
            enable_fallback=0,
        )
    except Exception as error:  # ONNX Runtime's errors share no base class
        _refuse_full_gpu(error, where)
        if type(error).__name__ == "NotImplemented":
            raise ProviderLacksKernel(
                f"ONNX Runtime cannot run {where} on {provider.name}: {_first_line(error).rpartition(' : ')[2]}.",
                "Name the precisions that this provider can run (--precision), or another provider (--provider).",
            ) from error
        raise ModelError(
            f"ONNX Runtime cannot open {where} on {provider.name}: {_first_line(error)}", "Export the model again."
        ) from error
    session.disable_fallback()
    # A provider that cannot be loaded is left out with no more than a line in the log.
    if session.get_providers()[0] != provider.ort_name:
        reasons = "; ".join(_in_the_way(provider)) or "it does not say why"
        raise EnvironmentProblem(
            f"ONNX Runtime was asked for {provider.ort_name} and took {', '.join(session.get_providers())}: "
            f"{reasons}.",
            code=codes.NODE_ELSEWHERE,
        )
    return session


def _refuse_full_gpu(error: Exception, where: str) -> None:
    """Tell memory of the GPU that is used up from what is wrong with a model.

    Raises:
        EnvironmentProblem: that is what an error of ONNX Runtime says.
    """
    text = str(error).lower()
    if "cuda" in text and any(words in text for words in _OUT_OF_MEMORY):
        raise gpu_memory_used_up(where, _first_line(error)) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
