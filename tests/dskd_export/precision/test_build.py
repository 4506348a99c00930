from __future__ import annotations

import numpy as np
import onnx
import pytest

from dskd_export.documents.precision import PrecisionMetadata
from dskd_export.errors import UsageError
from dskd_export.precision.build import Settings, build_precision
from dskd_export.precision.quantize import quantized_nodes
from dskd_export.precision.scoring import logits_of_model
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner


def _build(model, precision, calibration, **settings):
    return build_precision(model.SerializeToString(), precision, calibration, calibration, Settings(**settings))


def _metadata(built) -> PrecisionMetadata | None:
    proto = onnx.load_from_string(built.model)
    return PrecisionMetadata.from_metadata({item.key: item.value for item in proto.metadata_props}, "file")


def test_a_planted_outlier_is_found_and_put_back(make_cnn, calibration, unseen):
    model = make_cnn(outlier=300.0)
    with_search = _build(model, "int8", calibration, producer="onnxruntime", max_kl=0.02)
    without = _build(model, "int8", calibration, producer="onnxruntime", search=False)
    assert with_search.kept == ("conv2",)  # the layer that reads the channel with the outlier
    assert with_search.search is not None
    assert with_search.search.good
    assert with_search.search.layers[0].nodes == ["conv2"]
    assert without.search is None
    reference = logits_of_model(model, unseen)
    errors = [
        np.abs(logits_of_model(onnx.load_from_string(built.model), unseen) - reference).mean()
        for built in (with_search, without)
    ]
    assert errors[0] < 0.3 * errors[1]


def test_the_files_weights_are_8_bit_and_it_says_what_it_is(cnn, build):
    built = build("int8", rest="fp32")
    kinds = [
        item.data_type for item in onnx.load_from_string(built.model).graph.initializer if len(item.dims) == 4
    ]
    assert set(kinds) == {onnx.TensorProto.INT8}
    assert len(built.model) < 0.6 * len(cnn.SerializeToString())
    assert _metadata(built) == built.metadata
    assert built.metadata.precision == "int8"


def test_the_rest_in_fp16(build):
    built = build("int8", rest="fp16")
    kinds = {item.data_type for item in onnx.load_from_string(built.model).graph.initializer if len(item.dims)}
    assert onnx.TensorProto.FLOAT not in kinds
    assert built.metadata.rest == "fp16"


def test_named_layers_are_kept(cnn, calibration):
    built = _build(cnn, "int8", calibration, keep=("conv2",))
    assert "conv2" in built.kept
    assert "conv2" not in quantized_nodes(onnx.load_from_string(built.model))


def test_half_precision_is_searched_too(cnn, calibration):
    # So strict that some nodes have to stay fp32.
    built = _build(cnn, "fp16", calibration, producer="onnxruntime", max_kl=1e-9, max_kept=1.0)
    assert built.search is not None
    assert any(layer.kept for layer in built.search.layers)
    assert {node for layer in built.search.layers if layer.kept for node in layer.nodes} <= set(built.kept)


@pytest.mark.parametrize(
    "precision", ["fp16", "int8", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bf16", "fp8"))]
)
def test_two_builds_are_the_same_bytes(cnn, calibration, build, precision):
    assert _build(cnn, precision, calibration).model == build(precision, rest="fp32").model


def test_fp32_is_not_built(cnn, calibration):
    with pytest.raises(ValueError, match="fp32"):
        _build(cnn, "fp32", calibration)


def test_a_list_that_keeps_everything_is_refused(cnn, calibration):
    with pytest.raises(UsageError, match=r"export\.quantize\.keep leaves"):
        _build(cnn, "int8", calibration, producer="onnxruntime", keep=("conv1", "conv2", "conv3", "head"))


@pytest.mark.parametrize(
    ("precision", "rest"), [("int8", "fp16"), ("fp8", "fp32"), ("fp8", "fp16"), ("int8", "fp32")]
)
def test_the_runner_leaves_out_the_optimiser_that_would_spoil_it(cnn, build, unseen, precision, rest):
    built = build(precision, rest=rest)
    with OnnxRuntimeRunner(built.model, precision=precision) as runner:
        logits = runner.infer({"input": unseen})["logits"]
        assert runner.facts.optimizer is ((precision, rest) == ("int8", "fp32"))
    reference = logits_of_model(cnn, unseen)
    assert np.abs(logits - reference).mean() / np.abs(reference).max() < 0.05


def test_a_name_that_no_node_has_is_refused_with_the_closest(cnn, calibration):
    with pytest.raises(UsageError, match=r"no node conv22.*conv2\?"):
        _build(cnn, "int8", calibration, keep=("conv22",))


def test_the_images_that_were_searched_are_counted(cnn, calibration):
    built = build_precision(
        cnn.SerializeToString(), "int8", calibration, calibration.first(20), Settings(producer="onnxruntime")
    )
    assert built.search.images == 20
