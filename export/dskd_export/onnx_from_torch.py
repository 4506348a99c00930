"""A torch classifier becomes an ONNX model. The one file of this package that needs torch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from dskd_export.errors import ModelError, require

# Traced at two images: at one, torch specialises some models to a batch of one.
TRACE_BATCH = 2
MAX_BATCH = 1024


def onnx_from_torch(
    model: Any,
    *,
    input_size: tuple[int, int, int],
    opset: int,
    metadata: Mapping[str, str],
    input_name: str = "input",
    output_name: str = "logits",
) -> bytes:
    """Export a classifier with a dynamic batch, fp32, as one file without external data.

    The model is copied before it is exported, so it comes back unchanged.

    Args:
        model: an nn.Module, images BxCxHxW -> logits BxK.
        input_size: channels, height, width.
        opset: ONNX operator set, 18 to 21.
        metadata: written into the file's `metadata_props`.

    Returns:
        The serialised ONNX model; the same model and versions give the same bytes.

    Raises:
        MissingExtra: onnx or onnxscript is not installed.
        ModelError: torch cannot export this model; names the trace batch and the first reason.
    """
    import copy

    torch = require("torch", "train")
    onnx = require("onnx", "onnx")
    require("onnxscript", "onnx")
    device = torch.device("cpu")
    exported = copy.deepcopy(model).to(device, torch.float32).eval()
    images_BCHW = torch.zeros(TRACE_BATCH, *input_size)
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                exported,
                (images_BCHW,),
                dynamo=True,
                opset_version=opset,
                input_names=[input_name],
                output_names=[output_name],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=MAX_BATCH)},),
                external_data=False,
                optimize=True,
                verbose=False,
            )
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"torch.onnx cannot export {type(model).__name__}, traced at batch {TRACE_BATCH} "
            f"and {input_size[1]}x{input_size[2]}: {reason}",
            "Choose another student, or another export.opset.",
        ) from error
    proto = program.model_proto
    # Names of source files and lines: they hold paths of this machine and change the bytes.
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer]:
        del value.metadata_props[:]
    for function in proto.functions:
        del function.metadata_props[:]
        for node in function.node:
            del node.metadata_props[:]
    del proto.metadata_props[:]
    del proto.graph.metadata_props[:]
    onnx.helper.set_model_props(proto, dict(sorted(metadata.items())))
    onnx.checker.check_model(proto, full_check=True)
    buffer: bytes = proto.SerializeToString(deterministic=True)
    return buffer


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


def count_nodes(model: bytes) -> int:
    """Number of nodes of the main graph of a serialised ONNX model."""
    onnx = require("onnx", "onnx")
    return len(onnx.load_from_string(model).graph.node)
