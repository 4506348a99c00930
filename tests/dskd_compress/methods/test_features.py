from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dskd_compress.methods.features import (
    Projection,
    broadcast_channels,
    flatten_locations,
    measure_channels,
    pool,
)
from dskd_compress.taps import Tap


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3, 2)])
def test_statistics_equal_numpy_over_all_batches(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    batches = [3 + 2 * rng.normal(size=(count, *shape[1:])) for count in (5, 2, 7)]
    mean_C, std_C = measure_channels(torch.tensor(batch) for batch in batches)
    values = np.moveaxis(np.concatenate(batches), 1, -1).reshape(-1, 4)
    np.testing.assert_allclose(mean_C, values.mean(axis=0))
    np.testing.assert_allclose(std_C, values.std(axis=0))


def test_a_channel_that_hardly_fires_is_not_blown_up() -> None:
    feat = torch.randn(50, 5, dtype=torch.float64)
    feat[:, 2] = 0.5
    _, std_C = measure_channels([feat])
    assert float(std_C[2]) == pytest.approx(0.01 * float(feat.std(dim=0, unbiased=False).median()))
    assert torch.equal(measure_channels([torch.ones(4, 3)])[1], torch.ones(3, dtype=torch.float64))


def test_shapes() -> None:
    map_BCHW, vector_BC = torch.randn(2, 3, 4, 5), torch.randn(2, 3)
    torch.testing.assert_close(pool(map_BCHW), map_BCHW.flatten(2).sum(2) / 20)
    assert pool(vector_BC) is vector_BC
    assert torch.equal(flatten_locations(map_BCHW)[1 * 20 + 2 * 5 + 3], map_BCHW[1, :, 2, 3])
    assert flatten_locations(vector_BC) is vector_BC
    assert (map_BCHW * broadcast_channels(torch.arange(3.0), map_BCHW))[:, 0].abs().sum() == 0
    assert broadcast_channels(torch.arange(3.0), vector_BC).shape == (3,)


@pytest.mark.parametrize("norm", [True, False])
def test_a_projection_brings_channels_and_grid(norm: bool) -> None:
    student, teacher = Tap("map", 6, (4, 4), "NCHW"), Tap("map", 8, (2, 2), "NCHW")
    projection = Projection(student, teacher, norm=norm).eval()
    feat = torch.randn(3, 6, 4, 4)
    found = projection(feat)
    assert found.shape == (3, 8, 2, 2)
    expected = torch.einsum("oi,bihw->bohw", projection.body[0].weight[:, :, 0, 0], feat)
    expected = expected / (1 + 1e-5) ** 0.5 if norm else expected + projection.body[0].bias[:, None, None]
    smaller = F.interpolate(expected, (2, 2), mode="bilinear", antialias=True)
    torch.testing.assert_close(found, smaller, rtol=1e-4, atol=1e-5)
    assert Projection(student, teacher, channels=5)(feat).shape == (3, 5, 2, 2)


def test_a_projection_of_vectors_is_one_linear_layer() -> None:
    projection = Projection(Tap("vector", 6, None, "vector"), Tap("vector", 8, None, "vector"))
    feat = torch.randn(3, 6)
    torch.testing.assert_close(projection(feat), feat @ projection.body[0].weight.T + projection.body[0].bias)
