"""Hold calibration images, and measure the ranges of the tensors of a graph on them.

Shape suffixes: N images, and the model's own input behind it (CHW or HWC).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dskd_export.errors import DataError, require
from dskd_export.precision import graph


@dataclass(frozen=True)
class Calibration:
    """Images, as the model reads them.

    Attributes:
        input_N: one row an image: float32 after normalisation, or uint8 where the graph normalises.
        labels_N: class of each, int64.
        image_sha256: of each decoded image, in the same order.
        seed: that chose them.
    """

    input_N: NDArray[Any]
    labels_N: NDArray[np.int64]
    image_sha256: tuple[str, ...]
    seed: int

    def __post_init__(self) -> None:
        if not len(self.input_N):
            raise DataError("No calibration images.", "Set export.calibration.images to 1 or more.")
        if not len(self.input_N) == len(self.labels_N) == len(self.image_sha256):
            raise ValueError("images, labels and hashes are not of the same number")

    def __len__(self) -> int:
        return len(self.input_N)

    def first(self, images: int) -> Calibration:
        """The first images of the draw, which is as spread over the classes as the whole."""
        return Calibration(self.input_N[:images], self.labels_N[:images], self.image_sha256[:images], self.seed)

    def check_disjoint(self, evaluation_sha256: Iterable[str]) -> None:
        """Refuse images that the model is evaluated on.

        Raises:
            DataError: an image is in both sets; says how many.
        """
        both = set(self.image_sha256) & set(evaluation_sha256)
        if both:
            raise DataError(
                f"{len(both)} of {len(self)} calibration images are also evaluation images "
                f"(the first has sha256 {min(both)[:12]}): the accuracy would be too high.",
                "Keep training and validation images apart, or set another export.calibration.seed.",
            )


_BATCH = 4  # all tensors of a batch are in memory at once


@dataclass(frozen=True)
class Range:
    """Smallest and largest value of a tensor over all images; infinite where it overflowed."""

    low: float
    high: float

    @property
    def largest(self) -> float:
        """Largest absolute value."""
        return max(abs(self.low), abs(self.high))


def tensor_ranges(model: Any, inputs: Mapping[str, NDArray[Any]]) -> dict[str, Range]:
    """Run the model on ONNX Runtime and record the range of every floating-point tensor.

    Args:
        model: an onnx.ModelProto; left as it is.
        inputs: input name -> [N, ...].

    Returns:
        Tensor name -> range; the weights among them.
    """
    onnx = require("onnx", "onnx")
    onnxruntime = require("onnxruntime", "onnx")
    numpy_helper = onnx.numpy_helper
    typed = onnx.shape_inference.infer_shapes(graph.copy(model))
    there = {value.name for value in typed.graph.output}
    floats = [
        value
        for value in typed.graph.value_info
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and value.name not in there
    ]
    typed.graph.output.extend(floats)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(typed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = {
        item.name: _range_of(numpy_helper.to_array(item))
        for item in model.graph.initializer
        if item.data_type == onnx.TensorProto.FLOAT
    }
    names = [output.name for output in session.get_outputs()]
    count = len(next(iter(inputs.values())))
    for start in range(0, count, _BATCH):
        batch = {key: np.ascontiguousarray(value[start : start + _BATCH]) for key, value in inputs.items()}
        found.update(_merge(found, {key: _range_of(value) for key, value in batch.items()}))
        results = dict(zip(names, session.run(names, batch), strict=True))
        found.update(_merge(found, {name: _range_of(value) for name, value in results.items()}))
    return found


def _merge(found: Mapping[str, Range], more: Mapping[str, Range]) -> dict[str, Range]:
    return {
        name: Range(min(found[name].low, new.low), max(found[name].high, new.high)) if name in found else new
        for name, new in more.items()
    }


def _range_of(values: NDArray[Any]) -> Range:
    if not values.size:
        return Range(0.0, 0.0)
    low, high = float(values.min()), float(values.max())
    # NaN comes of an overflow that happened before it.
    return Range(low, high) if np.isfinite([low, high]).all() else Range(-np.inf, np.inf)
