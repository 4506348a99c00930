"""Score of a quantised model on ONNX Runtime.

Shape suffixes: N images, K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dskd_export.errors import ModelError
from dskd_export.precision.calibration import Calibration
from dskd_export.precision.emulate import emulate_bf16, holds_bf16
from dskd_export.precision.search import Score
from dskd_export.runtime.batches import logits_of
from dskd_export.runtime.metrics import kl_divergence
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner

_BATCH = 16


def logits_of_model(model: Any, input_N: NDArray[Any], *, optimise: bool = True) -> NDArray[np.float64]:
    """Run a model on ONNX Runtime's CPU provider: [N, ...] -> logits [N, K].

    Args:
        model: an onnx.ModelProto with one input and one output.
        input_N: images, as the model reads them.
        optimise: as for `OnnxRuntimeRunner`: an unfinished model carries no precision metadata.
    """
    names = {"input_name": model.graph.input[0].name, "output_name": model.graph.output[0].name}
    with OnnxRuntimeRunner(model.SerializeToString(), optimise=optimise) as runner:
        return logits_of(runner, input_N, batch=_BATCH, **names).astype(np.float64)


def score_of(reference_NK: NDArray[Any], logits_NK: NDArray[Any], labels_N: NDArray[np.int64]) -> Score:
    """Compare logits [N, K] with those of fp32; NaN or Inf counts as infinitely far and wrong."""
    finite_N = np.isfinite(logits_NK).all(axis=1)
    first_N = np.where(finite_N, np.nan_to_num(logits_NK).argmax(axis=1), -1)
    reference_N = reference_NK.argmax(axis=1)
    kl = float(kl_divergence(reference_NK, logits_NK).mean()) if finite_N.all() else float("inf")
    drop = float((reference_N == labels_N).mean() - (first_N == labels_N).mean())
    return Score(kl, float((first_N == reference_N).mean()), drop)


def reference_logits(model: Any, images: Calibration) -> NDArray[np.float64]:
    """Logits [N, K] of the fp32 model.

    Raises:
        ModelError: there is NaN or Inf among them.
    """
    reference_NK = logits_of_model(model, images.input_N)
    if not np.isfinite(reference_NK).all():
        raise ModelError("The fp32 model gives NaN or Inf.", "Check the student: dskd-compress validate")
    return reference_NK


def score_model(
    model: Any, reference_NK: NDArray[np.float64], images: Calibration, *, optimise: bool = True
) -> Score:
    """Run a converted model and compare it with fp32.

    Args:
        model: of any precision; bf16 is emulated where ONNX Runtime has no kernel.
        reference_NK: what `reference_logits` gave for the same images.
        images: labelled, and not those that the model is judged on later.
        optimise: as for `logits_of_model`.
    """
    if holds_bf16(model):
        model = emulate_bf16(model)
    return score_of(reference_NK, logits_of_model(model, images.input_N, optimise=optimise), images.labels_N)
