from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dskd_export.engine.inspect import (
    Layer,
    layers_of_json,
    layers_of_log,
    parse_type,
    refuse_other_precision,
    summarize_layers,
)
from dskd_export.errors import GateFailed, ModelError

# TensorRT 10's words, from the developer guide's examples of the engine inspector.
TEN = {
    "Layers": [
        {
            "Name": "Reformatting CopyNode for Input Tensor 0 to conv1",
            "LayerType": "Reformat",
            "Inputs": [{"Name": "x", "Format/Datatype": "Row major linear FP32"}],
            "Outputs": [{"Name": "r", "Format/Datatype": "Row major linear FP16 format"}],
        },
        {
            "Name": "conv1 + relu1",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": "r", "Format/Datatype": "Row major linear FP16 format"}],
            "Outputs": [{"Name": "c", "Format/Datatype": "Row major linear FP16 format"}],
        },
        {
            "Name": "conv2",
            "LayerType": "CaskConvolution",
            "Inputs": [
                {"Name": "c", "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}
            ],
            "Outputs": [{"Name": "d", "Format/Datatype": "Half"}],
        },
        {"Name": "shape", "LayerType": "shape_call", "Inputs": [], "Outputs": []},
    ],
    "Bindings": ["x", "d"],
}
# TensorRT 11's and TensorRT-RTX's.
ELEVEN = {
    "Layers": [
        {
            "Name": "gemm",
            "LayerType": "gemm",
            "Inputs": [{"Name": "x", "Datatype": "BFloat16", "Format": "(Linear) Row major linear format"}],
            "Outputs": [{"Name": "y", "Datatype": "Float", "Format": "(Linear) Row major linear format"}],
        },
        {
            "Name": "index",
            "LayerType": "kgen",
            "Inputs": [{"Name": "i", "Datatype": "Int64", "Format": ""}],
            "Outputs": [{"Name": "j", "Datatype": "Bool", "Format": ""}],
        },
    ],
    "I/O Tensors": ["x", "y"],
}
# What TensorRT-RTX 1.7.1 wrote into its log.
LOG = "\n".join(
    [
        "Layers:",
        "Name: __mye54_0_myl0_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , "
        "StreamId: 0, Metadata: ",
        "Name: __myl_Move_myl0_1, LayerType: kgen, Inputs: [ { Name: input, Dimensions: [-1,3,16,16], Strides: "
        "[768,256,16,1], StrideOrder: [3,2,1,0], Datatype: Float, Format: (Linear) Row major linear format }], "
        "Constants: [], Outputs: [ { Name: t, Dimensions: [-1,3,16,16], Strides: [768,1,48,3], StrideOrder: "
        "[3,0,2,1], Datatype: Half, Format: (NHWC) Channel major format }], TacticName: __myl_Move_0xa4, "
        "StreamId: 0, Metadata: ",
        "Name: conv_myl0_2, LayerType: correlation, Inputs: [ { Name: t, Dimensions: [-1,3,16,16], Datatype: "
        "Half, Format: (NHWC) Channel major format }], Constants: [ { Name: w, Dimensions: [8,3,3,3], Datatype: "
        "Float, Format: (NHWC) }], Outputs: [ { Name: c, Dimensions: [-1,8,16,16], Datatype: Half, Format: (NHWC) "
        "Channel major format }], TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: conv]\x1f"
        "[ONNX Layer: relu]",
        "",
        "I/O Tensors:",
        " Name: input, IOMode: Input, DataType: Float",
    ]
)


def test_tensorrt_10():
    layers = layers_of_json(json.dumps(TEN))
    assert [(layer.type, layer.reformat) for layer in layers] == [
        ("fp32", True),
        ("fp16", False),
        ("int8", False),
        (None, False),
    ]


def test_tensorrt_11():
    assert [layer.type for layer in layers_of_json(json.dumps(ELEVEN))] == ["bf16", None]


def test_the_log_of_tensorrt_rtx():
    assert layers_of_log(LOG) == [
        Layer("__mye54_0_myl0_0", None, False),
        Layer("__myl_Move_myl0_1", "fp32", True),
        Layer("conv_myl0_2", "fp16", False),
    ]
    assert layers_of_log("") == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Half", "fp16"),
        ("Float", "fp32"),
        ("BFloat16", "bf16"),
        ("BF16", "bf16"),
        ("Int8", "int8"),
        ("FP8", "fp8"),
        ("FP8E4M3", None),
        ("Row major linear FP32", "fp32"),
        ("Two wide channel vectorized row major FP16 format", "fp16"),
        ("Int32", None),
        ("Int64", None),
        ("Bool", None),
        ("N/A due to dynamic shapes", None),
        ("", None),
    ],
)
def test_words_for_types(text, name):
    assert parse_type(text) == name


def test_names_only_are_refused():
    with pytest.raises(ModelError, match="layers"):
        layers_of_json(json.dumps({"Layers": ["conv1", "relu1"], "Bindings": []}))


def test_shares_of_layers_and_time():
    layers = layers_of_json(json.dumps(TEN))
    times = {layers[0].name: 1.0, layers[1].name: 6.0, layers[2].name: 2.0, "shape": 1.0}
    truth = summarize_layers(layers, times_ms=times)
    assert (truth.layers, truth.untyped_layers) == (3, 1)
    assert [(s.type, s.layers, s.time_share) for s in truth.types] == [
        ("fp16", 1, 0.6),
        ("int8", 1, 0.2),
        ("fp32", 1, 0.1),
    ]
    assert truth.reformat_layers == [layers[0].name]
    assert (truth.reformat_layer_share, truth.reformat_time_share) == (0.25, 0.1)
    untimed = summarize_layers(layers, not_timed="there is no GPU")
    assert untimed.not_timed == "there is no GPU"
    assert {share.time_share for share in untimed.types} == {None}
    assert untimed.reformat_time_share is None


@given(
    st.lists(
        st.tuples(st.sampled_from(["fp32", "fp16", "int8", None]), st.booleans(), st.floats(0.001, 10)), min_size=1
    )
)
def test_shares_add_up(some):
    layers = [Layer(str(index), kind, moves) for index, (kind, moves, _) in enumerate(some)]
    times = {str(index): time for index, (_, _, time) in enumerate(some)}
    truth = summarize_layers(layers, times_ms=times)
    typed = sum(time for kind, _, time in some if kind)
    assert sum(share.time_share for share in truth.types) == pytest.approx(typed / sum(times.values()))
    assert truth.layers + truth.untyped_layers == len(layers)
    if truth.layers:
        assert sum(share.layer_share for share in truth.types) == pytest.approx(1)


def judged(precision, rest="fp32", timed=True, **ms):
    layers = [Layer(kind, kind, False) for kind in ms]
    truth = summarize_layers(layers, times_ms=ms if timed else None)
    return SimpleNamespace(precision=precision, rest=rest, truth=truth)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (judged("fp16", fp16=80, fp32=20), None),
        (judged("fp16", fp16=79, fp32=21), "79% of the time"),
        (judged("fp16", fp32=1), "No layer of the fp16 engine runs in fp16: fp32 100% of layers and 100% of time"),
        (judged("fp16", bf16=1), "No layer of the fp16"),
        (judged("bf16", bf16=9, fp32=1), None),
        (judged("int8", rest="fp16", int8=10, fp16=70, fp32=20), None),
        (
            judged("int8", rest="fp16", int8=10, fp16=60, fp32=30),
            "70% of the time of the int8 engine is spent in fp16 and int8",
        ),
        (judged("int8", rest="fp32", int8=10, fp32=90), None),
        (judged("int8", rest="fp32", fp32=90), "No layer of the int8"),
        (judged("fp32", fp32=1), None),
        (judged("fp16", timed=False, fp16=1, fp32=1, int8=1), None),
        (judged("fp16", timed=False, fp32=1), "No layer"),
    ],
)
def test_the_gate(document, words):
    if words is None:
        refuse_other_precision(document)
        return
    with pytest.raises(GateFailed) as caught:
        refuse_other_precision(document)
    assert words in caught.value.message
    assert caught.value.exit_code == 5
