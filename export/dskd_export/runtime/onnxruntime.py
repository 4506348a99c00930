"""A Runner over ONNX Runtime: exactly the requested provider, or an error."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from dskd_export import codes
from dskd_export.documents.precision import QUANTIZED, PrecisionMetadata
from dskd_export.documents.runner_name import RunnerName
from dskd_export.engine.device import gpu_out_of_memory
from dskd_export.errors import EnvironmentProblem, ModelError, ProviderLacksKernel, UsageError, require
from dskd_export.runtime.assignment import (
    RECORD,
    Assigned,
    can_record,
    list_profiled,
    list_recorded,
    make_profile_prefix,
    make_zeros,
    refuse_others,
)
from dskd_export.runtime.provider_problems import Build, Problem, find_problems
from dskd_export.runtime.providers import CPU, PROVIDERS, TENSORRT, Provider, Shape, make_options
from dskd_export.runtime.runner import Array, RunnerFacts
from dskd_export.runtime.shared_libraries import find_in, list_pip_folders
from dskd_export.spec import METADATA_KEY, ModelSpec
from dskd_export.telemetry.cuda import cuda_gpus
from dskd_export.telemetry.host import usable_cores

_LOG_ERRORS = 3
# Messages of CUDA, cuDNN, TensorRT and ONNX Runtime's own arena when the GPU is out of memory.
_OUT_OF_MEMORY = (
    "out of memory",
    "failed to allocate memory",
    "cudaerrormemoryallocation",
    "bfcarena",
    "outofmemory",
)


def list_providers() -> tuple[str, ...]:
    """List the providers that can be chosen here: in this build of ONNX Runtime, with a device.

    Raises:
        MissingExtra: ONNX Runtime is not installed.
    """
    built = _onnxruntime().get_available_providers()
    found = [provider for provider in PROVIDERS.values() if provider.ort_name in built]
    return tuple(provider.name for provider in found if not provider.needs_gpu or cuda_gpus())


def describe_build(ort: ModuleType) -> Build:
    """Describe the imported ONNX Runtime."""
    folder = Path(str(ort.__file__)).parent / "capi"
    return Build(ort.__version__, tuple(ort.get_available_providers()), folder)


def _read_metadata(model: Path | bytes) -> dict[str, str]:
    ort = _onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = _LOG_ERRORS
    # The graph is read and not run.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return dict(_open(model, options, CPU, {}).get_modelmeta().custom_metadata_map)


def _is_broken_by_optimizer(model: Path | bytes) -> bool:
    """Whether ONNX Runtime's CPU optimizer breaks a quantized model.

    Measured with 1.32: convolutions between Q/DQ with fp16 scales give logits at chance, and a Clip before a
    QuantizeLinear to fp8 raises an error.
    """
    made = PrecisionMetadata.from_metadata(
        _read_metadata(model), str(model) if isinstance(model, Path) else "model"
    )
    return made is not None and (made.precision == "fp8" or made.rest == "fp16")


class OnnxRuntimeRunner:
    """Call an ONNX model with numpy arrays.

    Args:
        model: the ONNX file, or its content.
        provider: `cpu`, `cuda` or `tensorrt`; nothing else is used in its place.
        threads: CPU threads of one operator; None: all cores that this process may use.
        precision: of the model, for the name and the facts.
        profile: prefix of the profile that `end_profile` writes.
        optimise: False: without ONNX Runtime's optimizer, which is also off for the quantized models that it
            breaks on the CPU (fp8, and int8 with fp16).
        allow_cpu: operators that may run on the CPU under another provider.
        shapes: input -> smallest, usual and largest shape of the calls; TensorRT builds for these.

    Raises:
        EnvironmentProblem: the provider is not available here, or the GPU is out of memory; or a node does
            not run on the provider, and its operator is not in `allow_cpu`.
        ModelError: the file is missing, or ONNX Runtime cannot run it.
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
            raise UsageError("threads must be at least 1.", "For example: --set 'benchmark.threads=[1]'")
        check_provider(provider)
        options = ort.SessionOptions()
        options.log_severity_level = _LOG_ERRORS
        if provider == "cpu" and precision in QUANTIZED and _is_broken_by_optimizer(model):
            optimise = False
        levels = ort.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
        # Always set: ONNX Runtime's default is the machine's cores, more than a container may use.
        options.intra_op_num_threads = threads or usable_cores()
        options.inter_op_num_threads = 1
        recording = PROVIDERS[provider].needs_gpu and can_record(ort.InferenceSession)
        if recording:
            options.add_session_config_entry(RECORD, "1")
        if profile is not None or (PROVIDERS[provider].needs_gpu and not recording):
            options.enable_profiling = True
            options.profile_file_prefix = str(profile or make_profile_prefix())
        chosen = PROVIDERS[provider]
        began = time.perf_counter()
        session = _open(model, options, chosen, make_options(chosen, shapes, allow_cpu))
        load_ms = (time.perf_counter() - began) * 1e3
        if chosen.needs_gpu:
            refuse_others(_list_assigned(session, profile), chosen, allow_cpu, lambda: _describe_problems(chosen))
        self._session: Any = session
        self._outputs = [output.name for output in session.get_outputs()]
        self.name = RunnerName.of("onnxruntime", provider, precision)
        self.facts = RunnerFacts(
            library="onnxruntime",
            version=ort.__version__,
            provider=provider,
            precision=precision,
            threads=options.intra_op_num_threads,
            providers=tuple(session.get_providers()),
            optimizer=optimise,
            tf32=False,
            load_ms=load_ms,
        )

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch; blocks until the outputs are in host memory.

        Raises:
            ModelError: the arrays do not fit the model's inputs, or the model fails on them.
        """
        if self._session is None:
            raise RuntimeError(f"{self.name} is closed")
        arrays = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        try:
            outputs = self._session.run(self._outputs, arrays)
        except Exception as error:  # ONNX Runtime's errors share no base class
            _raise_out_of_memory(error, self.name)
            raise ModelError(
                f"{self.name} cannot run on "
                f"{', '.join(f'{name} {array.dtype} {list(array.shape)}' for name, array in arrays.items())}: "
                f"{_first_line(error)}",
                "Use the input name, type and shape in spec.json.",
            ) from error
        return dict(zip(self._outputs, outputs, strict=True))

    def end_profile(self) -> Path:
        """Stop profiling and return the written file: JSON in Chrome's trace format."""
        return Path(self._session.end_profiling())

    def __enter__(self) -> OnnxRuntimeRunner:
        return self

    def __exit__(self, *error: object) -> None:
        self._session = None


def _onnxruntime() -> ModuleType:
    return require("onnxruntime", "onnx")


def check_provider(provider: str) -> None:
    """Check that a provider can run here, before any work.

    Raises:
        EnvironmentProblem: it cannot; names the reason, and the providers that can.
        UsageError: there is no provider of that name.
    """
    if provider not in PROVIDERS:
        raise UsageError(f"There is no provider {provider}.", f"Choose --provider {' or '.join(PROVIDERS)}.")
    problems = _problems(PROVIDERS[provider])
    if problems:
        usable = ", ".join(list_providers())
        raise problems[0].error(f"Provider {provider} is not available: ", f"; ONNX Runtime can use {usable} here")


def _problems(provider: Provider) -> list[Problem]:
    return find_problems(provider, describe_build(_onnxruntime()), cuda_gpus()) if provider.needs_gpu else []


def _describe_problems(provider: Provider) -> list[str]:
    return [problem.what for problem in _problems(provider)]


def _list_assigned(session: Any, profile: Path | None) -> list[Assigned]:
    """List where each node of a session runs; empty if the session is list_profiled for another purpose."""
    if can_record(type(session)):
        return list_recorded(session)
    if profile is not None:
        return []
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    feeds = make_zeros(session.get_inputs())
    if METADATA_KEY in metadata:  # a size that the graph leaves open is in the spec
        spec = ModelSpec.from_metadata(metadata, "the model")
        feeds = {name: np.zeros(spec.input_shape(1), array.dtype) for name, array in feeds.items()}
    return list_profiled(session, feeds)


@functools.cache
def _preload_tensorrt() -> None:
    """Load TensorRT from pip's folders, which the loader does not search; in the order of dependencies."""
    for name in ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10"):
        file = find_in(list_pip_folders(), name)
        if file is not None:
            with contextlib.suppress(OSError):  # reported by `find_problems`
                ctypes.CDLL(str(file), mode=ctypes.RTLD_GLOBAL)


def _open(model: Path | bytes, options: Any, provider: Provider, settings: Mapping[str, str]) -> Any:
    """Open an InferenceSession on the provider, with the CPU for what it cannot run: never on the CPU alone."""
    ort = _onnxruntime()
    where = str(model) if isinstance(model, Path) else "the model"
    if isinstance(model, Path) and not model.is_file():
        raise ModelError(f"{model}: no such file.", "Run: dskd-compress export RUN")
    if provider.needs_gpu and hasattr(ort, "preload_dlls"):
        # Finds CUDA and cuDNN in pip's folders; it prints, and stdout belongs to the result.
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
        _raise_out_of_memory(error, where)
        if type(error).__name__ == "NotImplemented":
            raise ProviderLacksKernel(
                f"ONNX Runtime cannot run {where} on {provider.name}: {_first_line(error).rpartition(' : ')[2]}.",
                "Choose other models with --precision, or another --provider.",
            ) from error
        raise ModelError(
            f"ONNX Runtime cannot open {where} on {provider.name}: {_first_line(error)}",
            "Run: dskd-compress export RUN",
        ) from error
    session.disable_fallback()
    # ONNX Runtime drops a provider that cannot be loaded, with a line in the log.
    if session.get_providers()[0] != provider.ort_name:
        reasons = "; ".join(_describe_problems(provider)) or "no reason given"
        raise EnvironmentProblem(
            f"ONNX Runtime uses {', '.join(session.get_providers())} instead of {provider.ort_name}: {reasons}.",
            code=codes.NODE_ELSEWHERE,
        )
    return session


def _raise_out_of_memory(error: Exception, where: str) -> None:
    """Recognize an error that is a lack of GPU memory.

    Raises:
        EnvironmentProblem: the GPU is out of memory.
    """
    text = str(error).lower()
    if "cuda" in text and any(words in text for words in _OUT_OF_MEMORY):
        raise gpu_out_of_memory(where, _first_line(error)) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
