"""Score of a quantised model on ONNX Runtime.

Shape suffixes: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dskd_export.compare import kl_divergence
from dskd_export.errors import ModelError, require
from dskd_export.precision.calibration import Calibration
from dskd_export.precision.quantize import keep_float
from dskd_export.precision.search import Score

_BATCH = 16


def logits_of_model(model: Any, input_N: NDArray[Any], *, optimise: bool = True) -> NDArray[np.float64]:
    """Run a model on ONNX Runtime's CPU provider: [N, ...] -> logits [N, K].

    Args:
        model: an onnx.ModelProto with one input and one output.
        input_N: images, as the model reads them.
        optimise: False for graphs that ONNX Runtime's optimiser breaks (fp8, and int8 beside fp16).
    """
    onnxruntime = require("onnxruntime", "onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    batches = (input_N[start : start + _BATCH] for start in range(0, len(input_N), _BATCH))
    return np.concatenate([session.run(None, {name: batch})[0] for batch in batches]).astype(np.float64)


def score_of(reference_NK: NDArray[Any], logits_NK: NDArray[Any], labels_N: NDArray[np.int64]) -> Score:
    """Hold logits [N, K] against those of fp32; NaN or Inf counts as infinitely far and wrong."""
    finite_N = np.isfinite(logits_NK).all(axis=1)
    first_N = np.where(finite_N, np.nan_to_num(logits_NK).argmax(axis=1), -1)
    reference_N = reference_NK.argmax(axis=1)
    kl = float(kl_divergence(reference_NK, logits_NK).mean()) if finite_N.all() else float("inf")
    drop = float((reference_N == labels_N).mean() - (first_N == labels_N).mean())
    return Score(kl, float((first_N == reference_N).mean()), drop)


def scorer(
    reference: Any, quantized: Any, images: Calibration, *, optimise: bool = True
) -> Callable[[frozenset[str]], Score]:
    """Score of a quantised model with some of its layers in floating point, for `search_layers`.

    Args:
        reference: the fp32 model.
        quantized: in pair form.
        images: labelled, and not those that the model is judged on later.
        optimise: as for `logits_of_model`.

    Raises:
        ModelError: the fp32 model gives NaN or Inf.
    """
    reference_NK = logits_of_model(reference, images.input_N)
    if not np.isfinite(reference_NK).all():
        raise ModelError("The fp32 model gives NaN or Inf.", "Check the student: dskd-compress validate")

    def evaluate(kept: frozenset[str]) -> Score:
        logits_NK = logits_of_model(keep_float(quantized, kept), images.input_N, optimise=optimise)
        return score_of(reference_NK, logits_NK, images.labels_N)

    return evaluate
