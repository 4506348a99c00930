"""Build or refit an engine in a child process.

TensorRT and its compilers are native code: a crash in them must not end the caller, and their memory is measured
apart from ours. The request, the outcome and an error all cross the process border as files.

As a module this is the child: `python -m dskd_export.engine.process FOLDER`.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from dskd_export import codes, errors
from dskd_export.bundle.onnx_file import opset_of
from dskd_export.child_process import make_module_command
from dskd_export.documents.base import Document
from dskd_export.engine.adapter import TensorRtAdapter, read_cache, write_cache
from dskd_export.engine.api import BackendName, BuildOptions, Failure, Plan, Refusal
from dskd_export.engine.document import TimingCacheFacts
from dskd_export.engine.generations import open_backend
from dskd_export.errors import DskdError, EnvironmentProblem, MissingExtra, ModelError, UsageError

_MIB = 1024**2
LEAST_WORKSPACE_BYTES = 64 * _MIB
"""The smallest workspace that is tried: below it hardly a convolution finds a kernel."""


class BuildRequest(Document):
    """What to build or refit. `model` is the ONNX file, `plan` the engine to write, `stripped` one to refit."""

    task: Literal["build", "refit"] = "build"
    backend: BackendName | Literal["auto"]
    model: Path
    plan: Path
    precision: str
    options: BuildOptions = BuildOptions()
    first_rung_bytes: int = Field(description="first limit that is tried when memory is short and none was set")
    cache_folder: Path
    cache_sha256: str | None = None
    device: int = 0
    stripped: Path | None = None


class BuildOutcome(Document):
    """What a build made and what it cost."""

    backend: BackendName
    version: str
    opset: int
    flags: tuple[str, ...] = ()
    layers: str = ""
    dla: tuple[int, list[str]] | None = None
    warnings: tuple[str, ...] = ()
    workspace_bytes: int | None = None
    workspace_tried_bytes: tuple[int, ...] = ()
    timing_cache: TimingCacheFacts | None = None
    seconds: float
    peak_memory_mb: float
    gpu_peak_mb: float | None = None


class Fault(Document):
    """An error on its way to the caller's process."""

    kind: str = Field(description="class in `dskd_export.errors`")
    message: str
    hint: str | None
    code: int | None = Field(description="number in `dskd_export.codes`")

    @classmethod
    def of(cls, error: DskdError) -> Fault:
        """Take down an error; a MissingExtra as its base class, whose arguments are its texts."""
        kind = "EnvironmentProblem" if isinstance(error, MissingExtra) else type(error).__name__
        code = None if error.code is None else error.code.number
        return cls(kind=kind, message=error.message, hint=error.hint, code=code)

    def error(self) -> DskdError:
        """The error again, with its class, hint and code."""
        kind: type[DskdError] = getattr(errors, self.kind)
        return kind(self.message, self.hint, code=None if self.code is None else codes.code_of(self.code))


def run_in_child_process(request: BuildRequest) -> BuildOutcome:
    """Run a request in a child process.

    Raises:
        DskdError: as `run_request`, with the same code; or EnvironmentProblem if the process died.
    """
    with tempfile.TemporaryDirectory(prefix="dskd-engine-") as name:
        folder = Path(name)
        (folder / "request.json").write_text(request.model_dump_json(), encoding="utf-8")
        child = subprocess.run(
            make_module_command(__spec__.name, name),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env=_environment(request.device),
        )
        if (folder / "fault.json").is_file():
            raise Fault.model_validate_json((folder / "fault.json").read_bytes()).error()
        if child.returncode or not (folder / "outcome.json").is_file():
            raise EnvironmentProblem(
                f"The TensorRT process {_describe_exit(child.returncode)} while building {request.precision}: "
                f"{_last_line(child.stderr)}.",
                "Free memory, or try another --builderOptimizationLevel or TensorRT version.",
            )
        return BuildOutcome.model_validate_json((folder / "outcome.json").read_bytes())


def _environment(device: int) -> dict[str, str]:
    """Show the child one GPU only, which is then the current one for all of TensorRT's threads."""
    environment = {**os.environ}
    visible = [entry for entry in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if entry]
    if device or visible:
        environment["CUDA_VISIBLE_DEVICES"] = visible[device] if device < len(visible) else str(device)
    return environment


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300].rstrip(".") if lines else "no output"


def run_request(request: BuildRequest, backend: TensorRtAdapter) -> BuildOutcome:
    """Build or refit with a backend, and write the engine to `request.plan`.

    Raises:
        DataError: the timing cache is not the one that the build is pinned to.
        EnvironmentProblem: this machine or this TensorRT version cannot build it.
        ModelError: TensorRT does not support the model; names operator and node.
        UsageError: the options contradict each other, or the workspace is too small.
    """
    began = time.perf_counter()
    model = request.model.read_bytes()
    opset = opset_of(model, request.model.name)
    if request.task == "refit":
        assert request.stripped is not None
        host_code = request.options.version_compatible
        plan = backend.refit(request.stripped.read_bytes(), model, request.model, host_code=host_code)
        request.plan.write_bytes(plan)
        return BuildOutcome(backend=backend.name, version=backend.version, opset=opset, **_measure_cost(began))
    _check_opset(opset, backend, request.precision)
    if refusals := backend.find_refusals(model, request.model):
        raise _make_refusal(refusals, backend, request.model.name)
    cache = None
    if backend.keeps_timing_cache:
        cache = read_cache(request.cache_folder, backend, request.cache_sha256)
    elif request.cache_sha256 is not None:
        raise UsageError(f"{backend.name} has no timing cache to pin the build to.", "Remove --timing-cache.")
    built, limit, tried = _build_within_memory(request, backend, model, None if cache is None else cache.content)
    facts = None
    if cache is not None and built.timing_cache is not None:
        after = write_cache(cache, built.timing_cache, backend)
        facts = TimingCacheFacts(file=cache.path.name, sha256_before=cache.sha256, sha256_after=after)
    request.plan.write_bytes(built.data)
    return BuildOutcome(
        backend=backend.name,
        version=backend.version,
        opset=opset,
        flags=built.flags,
        layers=built.layers,
        dla=None if built.dla is None else (built.dla.on_dla, list(built.dla.on_gpu)),
        warnings=built.warnings,
        workspace_bytes=limit,
        workspace_tried_bytes=tuple(tried),
        timing_cache=facts,
        gpu_peak_mb=built.gpu_peak_mb,
        **_measure_cost(began),
    )


def _measure_cost(began: float) -> dict[str, float]:
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    return {"seconds": time.perf_counter() - began, "peak_memory_mb": peak_bytes / 1e6}


def _check_opset(opset: int, backend: TensorRtAdapter, precision: str) -> None:
    if opset > backend.max_opset:
        why = {"bf16": " bf16 needs at least 22.", "fp8": " fp8 needs at least 19."}.get(precision, "")
        raise EnvironmentProblem(
            f"model.{precision}.onnx uses opset {opset}; the parser of {backend.name} {backend.version} "
            f"supports up to {backend.max_opset}.{why}",
            "Choose another --precision (fp16 for bf16) or a newer TensorRT, or export with --set export.opset=20",
        )


def _make_refusal(refusals: Sequence[Refusal], backend: TensorRtAdapter, name: str) -> DskdError:
    if any(refusal.damaged for refusal in refusals):
        return ModelError(f"{name} is damaged: {refusals[0].reason}", "Run: dskd-compress export RUN")
    shown = "; ".join(
        f"{refusal.operator or 'the model'} (node {refusal.node or 'unnamed'}): {refusal.reason}"
        for refusal in refusals[:5]
    )
    more = f"; and {len(refusals) - 5} more" if len(refusals) > 5 else ""
    return ModelError(
        f"{backend.name} {backend.version} does not support {name}: {shown}{more}.",
        "Choose a student without these operators, or run it with ONNX Runtime.",
    )


def _build_within_memory(
    request: BuildRequest, backend: TensorRtAdapter, model: bytes, cache: bytes | None
) -> tuple[Plan, int | None, list[int]]:
    """Build within the workspace limit; halve the limit as long as memory is too short."""
    limit, tried = request.options.workspace_bytes, list[int]()
    while True:
        outcome = backend.build(model, request.model, replace(request.options, workspace_bytes=limit), cache)
        if isinstance(outcome, Plan):
            return outcome, limit, tried
        lower = request.first_rung_bytes if limit is None else limit // 2
        if outcome.kind != "memory" or lower < LEAST_WORKSPACE_BYTES:
            raise _make_failure(outcome, request, limit, tried)
        if limit is not None:
            tried.append(limit)
        limit = lower


def _make_failure(failure: Failure, request: BuildRequest, limit: int | None, tried: list[int]) -> DskdError:
    what = f"TensorRT cannot build {request.precision}"
    # TensorRT also reports "out of memory" when a layer needs more than a tiny limit.
    too_small = not tried and limit is not None and limit < LEAST_WORKSPACE_BYTES
    if (failure.kind == "memory" and not too_small) or (failure.kind == "workspace" and tried):
        rungs = ", ".join(f"{size // _MIB}" for size in (*tried, *([] if limit is None else [limit])))
        return EnvironmentProblem(
            f"{what}: out of memory with workspaces of {rungs or 'any number of'} MiB: {failure.message}",
            "Close other programs on the GPU, or use a smaller --batch or --precision.",
        )
    if failure.kind in ("workspace", "memory"):
        return UsageError(
            f"{what} within a workspace of {(limit or 0) / 1e6:g} MB: {failure.message}",
            "Raise --memPoolSize workspace:MIB, or remove it.",
        )
    if failure.kind == "profile":
        return ModelError(f"{what}: {failure.message}.", "Change --batch to sizes that the model supports.")
    if failure.kind == "library":
        return EnvironmentProblem(
            f"{what}: {failure.message}",
            "Install all TensorRT packages in one version, or remove --versionCompatible.",
        )
    return ModelError(f"{what}: {failure.message}", "Choose another --precision, or a student without this node.")


def main(arguments: Sequence[str]) -> None:
    """Read `request.json` in a folder; write `outcome.json` or `fault.json` there."""
    folder = Path(arguments[0])
    request = BuildRequest.model_validate_json((folder / "request.json").read_bytes())
    answer: Document
    try:
        name, answer = "outcome.json", run_request(request, open_backend(request.backend))
    except DskdError as error:
        name, answer = "fault.json", Fault.of(error)
    (folder / name).write_text(answer.model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
