"""Run an engine to measure the number types that its layers spend their time in."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dskd_export.engine.adapter import TensorRtAdapter
from dskd_export.engine.builder import write_document
from dskd_export.engine.document import BuildDocument
from dskd_export.engine.inspect import layers_of_json, summarize_layers
from dskd_export.errors import ModelError
from dskd_export.runtime.cuda import Cuda
from dskd_export.runtime.tensorrt import TensorRtRunner

CALLS = 20
"""Calls that the time of each layer is summed over."""


def prove_engine(
    engine: Path, *, device: int = 0, backend: TensorRtAdapter | None = None, cuda: Cuda | None = None
) -> BuildDocument:
    """Time the layers of an engine on this GPU, and write their number types into its document.

    The input is noise, of the largest batch of the first profile: the choice of kernels does not depend on values.

    Args:
        engine: `model.<precision>.engine`.
        device: CUDA's index of the GPU.
        backend: TensorRT; None: the installed one.
        cuda: the CUDA device; None: `device`.

    Returns:
        The document, with `truth`.

    Raises:
        EnvironmentProblem: the engine cannot run here.
    """
    with TensorRtRunner(engine, device=device, cuda_graphs=False, backend=backend, cuda=cuda) as runner:
        rng = np.random.default_rng(0)
        largest = {name: shapes[2] for name, shapes in runner.signature.profiles[0].items()}
        feeds = {
            tensor.name: rng.integers(0, 256, largest[tensor.name]).astype(tensor.dtype)
            if tensor.dtype == np.uint8
            else rng.normal(size=largest[tensor.name]).astype(tensor.dtype)
            for tensor in runner.signature.inputs
        }
        document = runner.document
        try:
            layers = layers_of_json(runner.layers(feeds))
        except ModelError as error:
            document = document.model_copy(update={"truth": None, "no_truth": error.message})
        else:
            truth = summarize_layers(layers, times_ms=runner.time_layers(feeds, calls=CALLS))
            document = document.model_copy(update={"truth": truth, "no_truth": ""})
    write_document(engine, document)
    return document
