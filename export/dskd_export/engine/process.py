"""A build in a process of its own.

TensorRT and its compilers are native code: what crashes in them must not take down the caller, and their
memory can be told from ours. The request goes over as a file, as does what was made.

Run as a module it is that process: `python -m dskd_export.engine.process FOLDER`.
"""

from __future__ import annotations

import json
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

from dskd_export import errors
from dskd_export.documents.base import Document
from dskd_export.engine.api import Backend, BuildOptions, Failure, Plan, Refusal
from dskd_export.engine.document import TimingCacheFacts
from dskd_export.engine.generations import open_backend
from dskd_export.engine.opset import opset_of
from dskd_export.engine.timing_cache import read_cache, write_cache
from dskd_export.errors import DskdError, EnvironmentProblem, MissingExtra, ModelError, UsageError

_MIB = 1024**2
LEAST_WORKSPACE_BYTES = 64 * _MIB
"""The last rung of the ladder: with less, hardly a convolution finds a kernel."""


class Request(Document):
    """What to build or refit.

    Attributes with paths: `model` is the ONNX file, `plan` where the engine goes, `stripped` an engine to refit.
    """

    task: Literal["build", "refit"] = "build"
    backend: Literal["auto", "tensorrt", "tensorrt-rtx"]
    model: Path
    plan: Path
    precision: str
    options: BuildOptions = BuildOptions()
    first_rung_bytes: int = Field(description="where the ladder begins if memory is short and no limit was given")
    cache_folder: Path
    cache_sha256: str | None = None
    device: int = 0
    stripped: Path | None = None


class Done(Document):
    """What became of it."""

    backend: Literal["tensorrt", "tensorrt-rtx"]
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


def run_isolated(request: Request) -> Done:
    """Do it in another process.

    Raises:
        DskdError: as `perform`; or EnvironmentProblem where the process died, with how.
    """
    with tempfile.TemporaryDirectory(prefix="dskd-engine-") as name:
        folder = Path(name)
        (folder / "request.json").write_text(request.model_dump_json(), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", __spec__.name, name],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env=_environment(request.device),
        )
        answer = folder / "answer.json"
        if done.returncode or not answer.is_file():
            raise EnvironmentProblem(
                f"TensorRT's process {_ending(done.returncode)} while it built {request.precision}: "
                f"{_last_line(done.stderr)}.",
                "Free memory if it ran short; else this is a fault of TensorRT: try another --level or version.",
            )
        content = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in content:
        kind = getattr(errors, content["error"])
        raise kind(content["message"], content["hint"])
    return Done.model_validate(content)


def _environment(device: int) -> dict[str, str]:
    """The process sees one GPU, so that it is the current one for all of TensorRT's threads."""
    environment = {**os.environ}
    visible = [entry for entry in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if entry]
    if device or visible:
        environment["CUDA_VISIBLE_DEVICES"] = visible[device] if device < len(visible) else str(device)
    return environment


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300].rstrip(".") if lines else "it said nothing"


def perform(request: Request, backend: Backend) -> Done:
    """Build or refit with a backend, and write the engine to `request.plan`.

    Raises:
        DataError: the timing cache is not the one that the build is pinned to.
        EnvironmentProblem: this machine or this TensorRT cannot do it.
        ModelError: TensorRT does not take the model; names operator and node.
        UsageError: the options do not fit together, or leave no room.
    """
    began = time.perf_counter()
    model = request.model.read_bytes()
    opset = opset_of(model, request.model.name)
    if request.task == "refit":
        assert request.stripped is not None
        host_code = request.options.version_compatible
        plan = backend.refit(request.stripped.read_bytes(), model, request.model, host_code=host_code)
        request.plan.write_bytes(plan)
        return Done(backend=backend.name, version=backend.version, opset=opset, **_spent(began))
    _check_opset(opset, backend, request.precision)
    if refusals := backend.refused(model, request.model):
        raise _refused(refusals, backend, request.model.name)
    cache = None
    if backend.keeps_timing_cache:
        cache = read_cache(request.cache_folder, backend, request.cache_sha256)
    elif request.cache_sha256 is not None:
        raise UsageError(
            f"{backend.name} keeps no timing cache that a build could be pinned to.", "Leave --timing-cache out."
        )
    built, limit, tried = _climb(request, backend, model, None if cache is None else cache.content)
    facts = None
    if cache is not None and built.timing_cache is not None:
        after = write_cache(cache, built.timing_cache, backend)
        facts = TimingCacheFacts(file=cache.path.name, sha256_before=cache.sha256, sha256_after=after)
    request.plan.write_bytes(built.data)
    return Done(
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
        **_spent(began),
    )


def _spent(began: float) -> dict[str, float]:
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    return {"seconds": time.perf_counter() - began, "peak_memory_mb": peak_bytes / 1e6}


def _check_opset(opset: int, backend: Backend, precision: str) -> None:
    if opset > backend.max_opset:
        why = {"bf16": " bf16 needs at least 22.", "fp8": " fp8 needs at least 19."}.get(precision, "")
        raise EnvironmentProblem(
            f"model.{precision}.onnx has operator set {opset}; the parser of {backend.name} {backend.version} "
            f"reads up to {backend.max_opset}.{why}",
            "Take another precision (fp16 for bf16), or a newer TensorRT; or export with --set export.opset=20",
        )


def _refused(refusals: Sequence[Refusal], backend: Backend, name: str) -> DskdError:
    if any(refusal.damaged for refusal in refusals):
        return ModelError(f"{name} is damaged: {refusals[0].reason}", "Export the model again.")
    shown = "; ".join(
        f"{refusal.operator or 'the model'} (node {refusal.node or 'without a name'}): {refusal.reason}"
        for refusal in refusals[:5]
    )
    more = f"; and {len(refusals) - 5} more" if len(refusals) > 5 else ""
    return ModelError(
        f"{backend.name} {backend.version} does not take {name}: {shown}{more}.",
        "Choose a student without these operators, or run it with ONNX Runtime.",
    )


def _climb(
    request: Request, backend: Backend, model: bytes, cache: bytes | None
) -> tuple[Plan, int | None, list[int]]:
    """Build with the limit of scratch memory, and with half of it as long as memory is too short."""
    limit, tried = request.options.workspace_bytes, list[int]()
    while True:
        outcome = backend.build(model, request.model, replace(request.options, workspace_bytes=limit), cache)
        if isinstance(outcome, Plan):
            return outcome, limit, tried
        lower = request.first_rung_bytes if limit is None else limit // 2
        if outcome.kind != "memory" or lower < LEAST_WORKSPACE_BYTES:
            raise _failed(outcome, request, limit, tried)
        if limit is not None:
            tried.append(limit)
        limit = lower


def _failed(failure: Failure, request: Request, limit: int | None, tried: list[int]) -> DskdError:
    what = f"TensorRT cannot build {request.precision}"
    # What asks for more than a tiny limit is told to be out of memory as well.
    too_small = not tried and limit is not None and limit < LEAST_WORKSPACE_BYTES
    if (failure.kind == "memory" and not too_small) or (failure.kind == "workspace" and tried):
        rungs = ", ".join(f"{size // _MIB}" for size in (*tried, *([] if limit is None else [limit])))
        return EnvironmentProblem(
            f"{what}: memory is too short, with workspaces of {rungs or 'any number of'} MiB: {failure.message}",
            "Close other programs on the GPU, lower --batches, or build a smaller precision.",
        )
    if failure.kind in ("workspace", "memory"):
        return UsageError(
            f"{what} within a workspace of {(limit or 0) / 1e6:g} MB: {failure.message}",
            "Give more with --workspace-mb, or leave it out.",
        )
    if failure.kind == "profile":
        return ModelError(
            f"{what}: {failure.message}.",
            "Give the batches that the model takes with --batches; a bundle's own models take any.",
        )
    if failure.kind == "library":
        return EnvironmentProblem(
            f"{what}: {failure.message}",
            "Install all of TensorRT's packages in one version, or leave --version-compatible out.",
        )
    return ModelError(
        f"{what}: {failure.message}", "Look at this node in the ONNX file, or choose another precision."
    )


def main(arguments: Sequence[str]) -> None:
    """Entry point of the process: a folder with `request.json`; leaves `answer.json` there."""
    folder = Path(arguments[0])
    request = Request.model_validate_json((folder / "request.json").read_bytes())
    try:
        text = perform(request, open_backend(request.backend)).model_dump_json()
    except DskdError as error:
        # A missing extra is made of other words than it says.
        kind = "EnvironmentProblem" if isinstance(error, MissingExtra) else type(error).__name__
        text = json.dumps({"error": kind, "message": error.message, "hint": error.hint})
    (folder / "answer.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
