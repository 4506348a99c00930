from __future__ import annotations

import numpy as np

from dskd_export.precision.calibration import tensor_ranges


def _numpy_conv1(model, images):
    """The first convolution by hand, padded by one."""
    from onnx import numpy_helper

    weights = {item.name: numpy_helper.to_array(item).astype(np.float64) for item in model.graph.initializer}
    padded = np.pad(images.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.einsum("nchwij,ocij->nohw", windows, weights["w1"]) + weights["b1"][:, None, None]


def test_ranges_are_those_of_an_independent_calculation(cnn, calibration):
    images = calibration.input_N[:10]
    ranges = tensor_ranges(cnn, {"input": images})
    expected = _numpy_conv1(cnn, images)
    assert np.isclose(ranges["c1"].low, expected.min(), rtol=1e-5)
    assert np.isclose(ranges["c1"].high, expected.max(), rtol=1e-5)
    assert ranges["r1"].low == 0
    assert ranges["input"].high == images.max()
    assert ranges["w1"].largest > 0
    assert {"c1", "c2", "c3", "logits", "head"} <= set(ranges)


def test_what_overflows_is_infinite(make_cnn, calibration):
    ranges = tensor_ranges(make_cnn(overflow=1e38), {"input": calibration.input_N[:4] * 1e3})
    assert ranges["c2"].largest == np.inf


def test_the_model_is_left_alone(cnn, calibration):
    before = cnn.SerializeToString()
    tensor_ranges(cnn, {"input": calibration.input_N[:2]})
    assert cnn.SerializeToString() == before
