"""Steps of an image's way, on a real model and on an engine of a fake TensorRT."""

from __future__ import annotations

import engine_contract
import numpy as np
import pytest
from engine_machines import bundle, classifier, make_machine  # fixtures
from PIL import Image
from scipy import special

from dskd_export.benchmark.breakdown import measure_breakdown
from dskd_export.engine.builder import build_engine
from dskd_export.engine.document import engines_folder
from dskd_export.runtime.metrics import top_classes
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner
from dskd_export.runtime.tensorrt import TensorRtRunner
from dskd_export.settings import BuildSettings

__all__ = ["bundle", "classifier", "make_machine"]
NAMES = ["decode", "preprocess", "host_to_device", "enqueue", "device", "device_to_host", "postprocess"]


@pytest.fixture
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    return [Image.fromarray(pixels)] * 2


def test_on_a_cpu_there_are_no_copies(bundle, images):
    with OnnxRuntimeRunner(bundle.model("fp32"), threads=1) as runner:
        parts = measure_breakdown(runner, "cpu", bundle.spec, images, seconds=0.01)
    assert [part.name for part in parts] == NAMES
    timed = {part.name: part.p50_ms for part in parts if part.p50_ms is not None}
    assert set(timed) == {"decode", "preprocess", "device", "postprocess"}
    assert all(0 < found.low <= found.value <= found.high for found in timed.values())
    assert all(part.reason for part in parts if part.p50_ms is None)


@pytest.mark.parametrize("generation", engine_contract.SERVES["common.py"])
def test_an_engines_steps_are_told_by_events(generation, make_machine, bundle, images):
    machine = make_machine(generation)
    settings = BuildSettings(batches=(2,))
    path, _ = build_engine(bundle, "fp32", engines_folder(bundle.folder), settings, run=machine.run)
    with TensorRtRunner(path, backend=machine.backend, cuda=machine.cuda) as runner:
        parts = measure_breakdown(runner, "cuda", bundle.spec, images, seconds=0.01)
    assert [part.name for part in parts] == NAMES
    assert all(part.p50_ms is not None and part.p50_ms.value >= 0 for part in parts)
    by_events = {part.name for part in parts if part.clock == "device"}
    assert by_events == {"host_to_device", "device", "device_to_host"}
    assert machine.world.cuda.is_clean


def test_a_runner_that_does_it_in_one_call_is_not_taken_apart(bundle, images):
    with OnnxRuntimeRunner(bundle.model("fp32"), threads=1) as runner:
        parts = measure_breakdown(runner, "cuda", bundle.spec, images, seconds=0.01)
    reasons = {part.reason for part in parts if part.p50_ms is None}
    assert reasons == {"onnxruntime:cpu:fp32 copies and computes in one call"}


def test_the_likeliest_classes_against_scipy():
    logits = np.random.default_rng(1).normal(size=(6, 9)).astype(np.float32) * 30
    classes, shares = top_classes(logits, 4)
    expected = special.softmax(logits.astype(np.float64), axis=1)
    np.testing.assert_array_equal(classes, np.argsort(-expected, axis=1)[:, :4])
    np.testing.assert_allclose(shares, np.take_along_axis(expected, classes, axis=1), rtol=1e-12)
    assert top_classes(logits[:, :3], 5)[0].shape == (6, 3)
