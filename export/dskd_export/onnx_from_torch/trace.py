"""Trace a torch module to an ONNX graph with either exporter of torch; name the module that fails, and why."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from torch import nn

from dskd_export.errors import ModelError, require
from dskd_export.onnx_from_torch.deployed import STUDENT
from dskd_export.spec import ModelSpec

Exporter = Literal["dynamo", "legacy"]

# Traced at two images: at one, torch specialises some models to a batch of one.
TRACE_BATCH = 2


def trace(module: nn.Module, spec: ModelSpec, exporter: Exporter) -> Any:
    """Trace a module in eval mode; nothing of the graph is optimised yet.

    Returns:
        An `onnx_ir.Model`, whose tensors share the module's memory where the exporter allows it.

    Raises:
        ModelError: torch cannot export it; says which module failed, why, and what else there is.
    """
    shape = spec.input_shape(TRACE_BATCH)
    images = torch.zeros(shape, dtype=torch.uint8 if spec.input_dtype == "uint8" else torch.float32)
    try:
        with torch.no_grad(), _quiet():
            return _dynamo(module, images, spec) if exporter == "dynamo" else _legacy(module, images, spec)
    except Exception as error:  # of torch's tracer, its exporter, onnxscript, or the module itself
        others = {
            "dynamo": "Try --exporter legacy, which traces with TorchScript",
            "legacy": "Try --exporter dynamo",
        }
        size = f"{spec.height}x{spec.width}{' as any size' if spec.dynamic_size else ''}"
        raise ModelError(
            f"torch.onnx ({exporter}) cannot export {spec.architecture}, traced at batch {TRACE_BATCH} "
            f"and {size}: {explain(error, module)}",
            f"{others[exporter]}, another export.opset, or another student: dskd-compress models suggest",
        ) from error


def free_axes(spec: ModelSpec) -> dict[int, str]:
    """Axis of the input -> its name, for those that are not fixed."""
    axes = {0: "batch"}
    if spec.dynamic_size:
        first = 2 if spec.input_layout == "NCHW" else 1
        axes |= {first: "height", first + 1: "width"}
    return axes


def _dynamo(module: nn.Module, images: torch.Tensor, spec: ModelSpec) -> Any:
    program = torch.onnx.export(
        module,
        (images,),
        dynamo=True,
        opset_version=spec.opset,
        input_names=[spec.input_name],
        output_names=[spec.output_name],
        dynamic_shapes=(free_axes(spec),),
        external_data=False,
        optimize=False,
        verbose=False,
    )
    assert program is not None  # only the legacy exporter gives none
    return program.model


def _legacy(module: nn.Module, images: torch.Tensor, spec: ModelSpec) -> Any:
    ir = require("onnx_ir", "onnx")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            module,
            (images,),
            path,
            dynamo=False,
            opset_version=spec.opset,
            input_names=[spec.input_name],
            output_names=[spec.output_name],
            dynamic_axes={spec.input_name: free_axes(spec), spec.output_name: {0: "batch"}},
            do_constant_folding=True,
        )
        return ir.from_proto(require("onnx", "onnx").load(str(path)))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress lines and known warnings away from the user's terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def explain(error: BaseException, model: nn.Module) -> str:
    """One line: `in layer1.0.attn (Attention): <reason>`; without the place where torch does not name it."""
    chain = list(_chain(error))
    place = next((found for link in reversed(chain) if (found := _place(link, model))), None)
    # The innermost error is the reason; those around it say which step of the exporter met it.
    reason = next((line for link in reversed(chain) if (line := _line(link))), type(error).__name__)
    return f"in {place}: {reason}" if place else reason


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _line(error: BaseException) -> str:
    """The first line of a message that is not empty."""
    for line in str(error).splitlines():
        if line.strip():
            return f"{type(error).__name__}: {line.strip()}"
    return ""


def _place(error: BaseException, model: nn.Module) -> str | None:
    """The innermost module of the model in a traceback, by what the frames hold."""
    names = {
        id(module): (name.removeprefix(f"{STUDENT}."), type(module).__name__)
        for name, module in model.named_modules()
        if name
    }
    place = None
    traceback: TracebackType | None = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame.f_locals
        if found := names.get(id(frame.get("self"))):
            place = f"{found[0]} ({found[1]})"
        elif isinstance(node := frame.get("node"), torch.fx.Node):  # of the exporter's walk over the graph
            stack = list((node.meta.get("nn_module_stack") or {}).values())
            if stack and stack[-1][0]:
                kind = stack[-1][1]
                place = (
                    f"{stack[-1][0]} ({getattr(kind, '__name__', str(kind).rpartition('.')[2])}), {node.target}"
                )
        traceback = traceback.tb_next
    return place
