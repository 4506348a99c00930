from __future__ import annotations

import numpy as np
import pytest

from dskd_export.errors import ModelError, ProviderLacksKernel
from dskd_export.runtime.compute_precision import find_compute_precision, judge_kernels, list_kernel_types

IMAGE = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)


def make_conv(precision: str = "fp32", opset: int = 20) -> bytes:
    """Convolution, pooling and a linear head in one number type, float on the outside."""
    import ml_dtypes
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kinds = {
        "fp32": (TensorProto.FLOAT, np.float32),
        "fp16": (TensorProto.FLOAT16, np.float16),
        "bf16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
    }
    kind, dtype = kinds[precision]
    rng = np.random.default_rng(1)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["input"], ["x"], to=kind),
            helper.make_node("Conv", ["x", "w", "b"], ["y"], kernel_shape=[3, 3]),
            helper.make_node("Relu", ["y"], ["z"]),
            helper.make_node("GlobalAveragePool", ["z"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("Gemm", ["f", "v", "c"], ["g"]),
            helper.make_node("Cast", ["g"], ["logits"], to=TensorProto.FLOAT),
        ],
        "conv",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 5])],
        [
            numpy_helper.from_array(rng.normal(size=(4, 3, 3, 3)).astype(dtype), "w"),
            numpy_helper.from_array(rng.normal(size=4).astype(dtype), "b"),
            numpy_helper.from_array(rng.normal(size=(4, 5)).astype(dtype), "v"),
            numpy_helper.from_array(rng.normal(size=5).astype(dtype), "c"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The same with Q/DQ around everything, as ONNX Runtime's quantiser writes it."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            rng = np.random.default_rng(2)
            self.images = iter([{"input": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(4)])

        def get_next(self):  # type: ignore[no-untyped-def]
            return next(self.images, None)

    folder = tmp_path_factory.mktemp("int8")
    (folder / "fp32.onnx").write_bytes(make_conv())
    quantize_static(
        folder / "fp32.onnx",
        folder / "int8.onnx",
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    return (folder / "int8.onnx").read_bytes()


def test_fp32_is_fp32() -> None:
    assert find_compute_precision(make_conv(), "fp32", "cpu", {"input": IMAGE}).is_native


def test_the_cpu_computes_fp16_in_fp32_and_says_so() -> None:
    found = find_compute_precision(make_conv("fp16"), "fp16", "cpu", {"input": IMAGE})
    # An Arm build of ONNX Runtime has kernels of its own; whatever it is, it is what the profile counts.
    if not found.is_native:
        assert found.reason == "computed in fp32 on cpu: 0 of 2 convolutions and matrix products run in fp16"


def test_an_int8_model_runs_in_int8_on_the_cpu(int8: bytes) -> None:
    found = find_compute_precision(int8, "int8", "cpu", {"input": IMAGE})
    assert (found.is_native, found.reason) == (True, "2 of 2 convolutions and matrix products run in int8")


def test_an_fp32_model_that_claims_int8_is_found_out() -> None:
    found = find_compute_precision(make_conv(), "int8", "cpu", {"input": IMAGE})
    assert found.reason == "computed in fp32 on cpu: 0 of 2 convolutions and matrix products run in int8"
    assert not found.is_native


def test_the_cpu_has_no_kernels_for_bf16() -> None:
    with pytest.raises(ProviderLacksKernel, match="the model on cpu") as caught:
        find_compute_precision(make_conv("bf16", opset=22), "bf16", "cpu", {"input": IMAGE})
    assert "--precision" in str(caught.value.hint)


def test_no_model() -> None:
    with pytest.raises(ModelError, match="the model on cpu"):
        find_compute_precision(b"", "fp16", "cpu", {"input": IMAGE})


def node(
    op: str, *types: dict[str, list[int]], cat: str = "Node", name: str = "n_kernel_time"
) -> dict[str, object]:
    return {"cat": cat, "name": name, "args": {"op_name": op, "input_type_shape": list(types)}}


def test_the_type_of_a_kernel_is_that_of_its_weight() -> None:
    x, w, scale = {"uint8": [1, 3, 8, 8]}, {"int8": [4, 3, 3, 3]}, {"float": [4]}
    events = [
        node("QLinearConv", x, {"float": []}, {"uint8": []}, w, scale),
        node("Conv", {"float16": [1, 3, 8, 8]}, {"float16": [4, 3, 3, 3]}, {"float16": [4]}),
        node("com.microsoft.FusedMatMul", {"float": [1, 4]}, {"float": [4, 5]}),
        node("Gemm", {"bfloat16": [1, 4]}, {"bfloat16": [4, 5]}),
        node("Relu", {"float": [1, 4]}),
        node("Conv", {"float": [1, 3, 8, 8]}, {"float": [4, 3, 3, 3]}, cat="Session"),
        node("Conv", {"float": [1, 3, 8, 8]}, {"float": [4, 3, 3, 3]}, name="n_fence_before"),
        node("MatMul", {"complex64": [1, 4]}, {"complex64": [4, 5]}),
        node("Conv"),
    ]
    assert list_kernel_types(events) == ["int8", "fp16", "fp32", "bf16", "complex64"]


def test_most_kernels_decide() -> None:
    assert judge_kernels(["int8"] * 5 + ["fp32"] * 5, "int8", "cpu").is_native
    found = judge_kernels(["int8"] * 4 + ["fp32"] * 5, "int8", "cuda")
    assert (found.is_native, found.reason) == (
        False,
        "computed in fp32 on cuda: 4 of 9 convolutions and matrix products run in int8",
    )
    assert not judge_kernels([], "fp16", "cpu").is_native
