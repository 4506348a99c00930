"""Compare an ONNX model with torch on the same inputs, at its own and at other image sizes.

Shape suffixes: B images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dskd_export.errors import ModelError
from dskd_export.onnx_from_torch.pack import OnnxModel
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner
from dskd_export.spec import ModelSpec

# One, an odd number, and a power of two; none is the batch that is traced.
BATCHES = (1, 3, 8)
LIMIT = 1e-4

Array = NDArray[Any]


@dataclass(frozen=True)
class Probe:
    """Images of one size with the answers that are right.

    Attributes:
        images: [8, ...] in the type and layout of the spec; real and random ones alternate.
        expected: float32 [8, ...], what the model gave before anything was done to it.
    """

    images: Array
    expected: Array


def make_images(spec: ModelSpec, real: Array | None, height: int, width: int) -> Array:
    """Eight images: every other one real, as far as there are any of this size, the rest random.

    Random ones are normal for a normalised input and uniform for bytes, the same on every machine.
    """
    count = max(BATCHES)
    shape = spec.model_copy(update={"height": height, "width": width}).input_shape(count)
    rng = np.random.default_rng(0)
    if spec.input_dtype == "uint8":
        images: Array = rng.integers(0, 256, shape, dtype=np.uint8)
    else:
        images = rng.standard_normal(shape, dtype=np.float32)
    if real is not None and len(real) and real.shape[1:] == shape[1:]:
        images[0::2] = real[np.arange(count // 2) % len(real)]
    return images


def run_torch(module: nn.Module, images: Array) -> Array:
    """What a module gives, float32.

    Raises:
        ModelError: it gives something else than one tensor.
    """
    with torch.inference_mode():
        output = module(torch.from_numpy(images))
    if not isinstance(output, torch.Tensor):
        raise ModelError(
            f"{type(module).__name__} returns a {type(output).__name__} instead of one tensor of logits.",
            "Export a classifier.",
        )
    array: Array = output.float().numpy()
    return array


def make_probe(module: nn.Module, images: Array) -> Probe:
    """Record the reference's answers.

    Raises:
        ModelError: it gives NaN or Inf, or no tensor.
    """
    expected = run_torch(module, images)
    if not np.isfinite(expected).all():
        raise ModelError(
            f"{type(module).__name__} gives NaN or Inf: its export cannot be checked.",
            "Train the student again: dskd-compress distill",
        )
    return Probe(images, expected)


def difference(expected: Array, found: Array) -> float:
    """Largest difference / largest value expected; infinite for NaN, Inf or another shape."""
    if expected.shape != found.shape or not np.isfinite(found).all():
        return float("inf")
    scale = float(np.abs(expected).max())
    worst = float(np.abs(expected.astype(np.float64) - found.astype(np.float64)).max())
    if scale == 0:
        return 0.0 if worst == 0 else float("inf")
    return worst / scale


def onnx_difference(model: OnnxModel, spec: ModelSpec, probes: Sequence[Probe]) -> float:
    """The worst difference of an ONNX model in ONNX Runtime on the CPU, at every size and batch.

    Raises:
        ModelError: ONNX Runtime cannot open or run it.
    """
    with tempfile.TemporaryDirectory() as folder:
        # In memory where that is possible; the weights of large models must be next to the graph.
        source = model.proto if model.weights is None else model.write(Path(folder))
        with OnnxRuntimeRunner(source, threads=torch.get_num_threads()) as runner:
            return max(
                difference(
                    probe.expected[:batch],
                    np.asarray(runner.infer({spec.input_name: probe.images[:batch]})[spec.output_name]),
                )
                for probe in probes
                for batch in BATCHES
            )


# Strides of CNNs, then patches of transformers; what remains is a whole multiple of the model's own size.
_STEPS = (32, 16, 14, 12)


def probes_of_other_sizes(module: nn.Module, spec: ModelSpec) -> list[Probe]:
    """Two probes of sizes that are not the model's: one larger and not square, one smaller where it takes that.

    Raises:
        ModelError: it accepts its native size only; the message gives the reason.
    """
    probes, first_error = [], None
    for factor in (1, -1):
        for step in (*_STEPS, spec.height):
            height, width = spec.height + factor * step, spec.width + 2 * factor * step
            if min(height, width) < step:
                continue
            try:
                probes.append(make_probe(module, make_images(spec, None, height, width)))
            except Exception as error:  # the module's own refusal, of any kind
                first_error = first_error or error
                continue
            break
        if not probes:
            lines = str(first_error).strip().splitlines() or [type(first_error).__name__]
            raise ModelError(
                f"export.dynamic_size: {spec.architecture} accepts {spec.height}x{spec.width} only: {lines[0]}",
                "Set export.dynamic_size=false; for some transformers of timm, set "
                "student.kwargs.dynamic_img_size=true instead.",
            ) from first_error
    return probes
