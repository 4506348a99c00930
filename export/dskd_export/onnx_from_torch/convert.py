"""Convert a torch classifier to an ONNX file, each step checked against the original classifier."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dskd_export.errors import ModelError, require
from dskd_export.onnx_from_torch.deployed import wrap_for_deployment
from dskd_export.onnx_from_torch.pack import MAX_SINGLE_FILE_BYTES, OnnxModel, check, clean, pack
from dskd_export.onnx_from_torch.parity import (
    LIMIT,
    Array,
    Probe,
    make_images,
    make_probe,
    onnx_difference,
    probes_of_other_sizes,
)
from dskd_export.onnx_from_torch.passes import PassFacts, graph_passes, operate
from dskd_export.onnx_from_torch.trace import Exporter, trace
from dskd_export.spec import ModelSpec


@dataclass(frozen=True)
class Exported:
    """An ONNX model and how it came about.

    Attributes:
        model: the bytes.
        exporter: of torch, that made it.
        passes: every step in its order, the ones left out with their reason.
    """

    model: OnnxModel
    exporter: Exporter
    passes: tuple[PassFacts, ...]

    @property
    def max_abs_relative(self) -> float:
        """Of the model against torch, at batch 1, 3 and 8: largest difference / largest output."""
        return next(
            step.max_abs_relative
            for step in reversed(self.passes)
            if step.applied and step.max_abs_relative is not None
        )

    def provenance(self) -> dict[str, Any]:
        """Plain JSON values for a manifest."""
        return {
            "exporter": f"torch.onnx {self.exporter}",
            "passes": [step.model_dump(mode="json") for step in self.passes],
        }


def onnx_from_torch(
    model: nn.Module,
    spec: ModelSpec,
    *,
    exporter: Exporter = "dynamo",
    slim: bool = False,
    images: Array | None = None,
    metadata: Mapping[str, str] | None = None,
    file_name: str = "model.fp32.onnx",
    max_single_file_bytes: int = MAX_SINGLE_FILE_BYTES,
) -> Exported:
    """Export a classifier in fp32 with a free batch, as the spec describes it.

    The model is copied first and stays unchanged. What simplifies it (in
    torch, then in the graph) stays only if the answers stay: to 1e-5 of the output's scale in torch, to
    1e-4 in ONNX Runtime at batch 1, 3 and 8, and at other sizes where the spec has them free.

    Args:
        model: normalised images BxCxHxW -> logits BxK.
        spec: input, output, opset, and what becomes part of the graph (normalisation, softmax).
        exporter: of torch; there is no silent change to the other one.
        slim: run onnxslim after onnxscript's optimiser.
        images: real images in the spec's type and layout, to compare by; random ones are used in any case.
        metadata: what the file carries; None: the spec.
        file_name: that the model will be written by.
        max_single_file_bytes: weights above this go into a second file.

    Returns:
        The model; the same model, spec and versions give the same bytes.

    Raises:
        MissingExtra: onnx, onnxscript, onnxruntime or, with `slim`, onnxslim is not installed.
        ModelError: torch cannot export this model, its export is another function, or it takes no other sizes.
    """
    for library in ("onnx", "onnxscript", "onnxruntime", *(["onnxslim"] if slim else [])):
        require(library, "onnx")
    module = wrap_for_deployment(copy.deepcopy(model).to("cpu", torch.float32).eval(), spec).requires_grad_(False)
    probe = make_probe(module, make_images(spec, images, spec.height, spec.width))
    probes = [probe, *(probes_of_other_sizes(module, spec) if spec.dynamic_size else [])]
    module, steps = operate(module, probe)
    graph = trace(module, spec, exporter)
    carried = spec.to_metadata() if metadata is None else metadata
    done, found = _finish(graph, spec, probes, carried, file_name, max_single_file_bytes)
    if not found <= LIMIT:
        raise ModelError(
            f"The graph that torch.onnx ({exporter}) made of {spec.architecture} is not equivalent: its outputs "
            f"differ by {found:.1e} of their scale; the limit is {LIMIT:.0e}.",
            f"Try --exporter {'legacy' if exporter == 'dynamo' else 'dynamo'}, or another export.opset.",
        )
    steps.append(PassFacts.judge(f"torch.onnx {exporter}", found, LIMIT))
    for name, optimise in graph_passes(slim=slim).items():
        try:
            changed = optimise(graph)
            candidate, found = _finish(changed, spec, probes, carried, file_name, max_single_file_bytes)
        except Exception as error:  # of an optimiser, the checker, or ONNX Runtime: all the same to the caller
            reason = (str(error).strip().splitlines() or [""])[0]
            steps.append(PassFacts(name=name, applied=False, reason=f"{type(error).__name__}: {reason}"))
            continue
        steps.append(PassFacts.judge(name, found, LIMIT))
        if steps[-1].applied:
            graph, done = changed, candidate
    return Exported(done, exporter, tuple(steps))


def _finish(
    graph: Any,
    spec: ModelSpec,
    probes: list[Probe],
    metadata: Mapping[str, str],
    file_name: str,
    max_single_file_bytes: int,
) -> tuple[OnnxModel, float]:
    """The bytes of a graph, checked, and how far they are from torch."""
    finished = graph.clone()
    clean(finished, metadata)
    model = pack(finished, file_name, max_single_file_bytes)
    check(model)
    return model, onnx_difference(model, spec, probes)
