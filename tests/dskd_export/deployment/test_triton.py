"""The model repository against Triton's own schema, and its models in ONNX Runtime."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from deployment_support import ODD_CLASSES, ODD_INPUT, odd_bundle, plain_bundle
from google.protobuf import text_format

from dskd_export.bundle import Bundle
from dskd_export.deployment import Plan, make_plan, write_deployment
from dskd_export.deployment.triton import config_pbtxt, preferred_batches

SHAPES = {"tensor(float)": ("TYPE_FP32", np.float32), "tensor(uint8)": ("TYPE_UINT8", np.uint8)}


@pytest.fixture(scope="module")
def schema() -> Any:
    """Triton's `model_config.proto`, as NVIDIA's client package carries it.

    Loaded by its path: the package around it wants gRPC.
    """
    package = importlib.util.find_spec("tritonclient")
    if package is None or package.origin is None:
        pytest.fail("tritonclient is not installed; it comes with: pip install --group test")
    path = Path(package.origin).parent / "grpc/model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return plain_bundle(tmp_path_factory.mktemp("plain") / "bundle")


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return odd_bundle(tmp_path_factory.mktemp("odd") / "bundle")


def parsed(schema: Any, plan: Plan) -> Any:
    return text_format.Parse(config_pbtxt(plan).decode(), schema.ModelConfig())


def enum(schema: Any, name: str) -> int:
    return int(schema.DataType.Value(name))


def test_the_schema_refuses_what_it_does_not_know(schema: Any, plain: Bundle) -> None:
    text = config_pbtxt(make_plan(plain)).decode()
    for wrong in (
        text + "max_batch: 8\n",
        text.replace("TYPE_FP32", "TYPE_FLOAT32"),
        text.replace("dims: [", "dims: [ x,"),
    ):
        with pytest.raises(text_format.ParseError):
            text_format.Parse(wrong, schema.ModelConfig())


def test_the_configuration_of_a_plain_model(schema: Any, plain: Bundle) -> None:
    config = parsed(schema, make_plan(plain))
    assert (config.name, config.backend, config.max_batch_size) == ("resnet18_fp32", "onnxruntime", 8)
    (given,), (got,) = config.input, config.output
    assert (given.name, given.data_type, list(given.dims)) == ("input", enum(schema, "TYPE_FP32"), [3, 6, 8])
    assert (got.name, got.data_type, list(got.dims)) == ("logits", enum(schema, "TYPE_FP32"), [7])
    assert got.label_filename == "labels.txt"
    assert list(config.dynamic_batching.preferred_batch_size) == [2, 4, 8]
    assert config.dynamic_batching.max_queue_delay_microseconds > 0
    (group,) = config.instance_group
    assert (group.count, group.kind) == (1, schema.ModelInstanceGroup.KIND_GPU)
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert (accelerator.name, dict(accelerator.parameters)) == ("cuda", {"use_tf32": "0"})
    assert [(warm.batch_size, list(warm.inputs["input"].dims)) for warm in config.model_warmup] == [
        (1, [3, 6, 8]),
        (8, [3, 6, 8]),
    ]


def test_bytes_of_any_size_and_probabilities(schema: Any, odd: Bundle) -> None:
    config = parsed(schema, make_plan(odd, provider="cpu"))
    (given,), (got,) = config.input, config.output
    assert (given.name, given.data_type, list(given.dims)) == (ODD_INPUT, enum(schema, "TYPE_UINT8"), [-1, -1, 3])
    assert (got.name, list(got.dims)) == ("probabilities", [7])
    assert config.instance_group[0].kind == schema.ModelInstanceGroup.KIND_CPU
    assert not config.HasField("optimization")
    # A warm-up needs a shape: that of the spec.
    assert [list(warm.inputs[ODD_INPUT].dims) for warm in config.model_warmup] == [[6, 8, 3]] * 2


def test_a_batch_of_one_is_not_waited_for(schema: Any, plain: Bundle) -> None:
    config = parsed(schema, make_plan(plain, max_batch=1))
    assert config.max_batch_size == 1
    assert not config.HasField("dynamic_batching")
    assert [warm.batch_size for warm in config.model_warmup] == [1]


@pytest.mark.parametrize(("precision", "mode"), [("fp32", "FP32"), ("fp16", "FP16"), ("int8", "INT8")])
def test_the_tensorrt_provider(schema: Any, plain: Bundle, precision: str, mode: str) -> None:
    config = parsed(schema, make_plan(plain, precision=precision, provider="tensorrt", max_batch=6))
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    settings = dict(accelerator.parameters)
    assert settings["precision_mode"] == mode
    assert settings["trt_profile_min_shapes"] == "input:1x3x6x8"
    assert settings["trt_profile_max_shapes"] == settings["trt_profile_opt_shapes"] == "input:6x3x6x8"
    assert settings["trt_engine_cache_path"] == f"/cache/resnet18_{precision}"


def test_free_sizes_have_no_profile(schema: Any, odd: Bundle) -> None:
    config = parsed(schema, make_plan(odd, provider="tensorrt"))
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert not [key for key in accelerator.parameters if key.startswith("trt_profile")]


@pytest.mark.parametrize(
    ("largest", "preferred"),
    [(1, []), (2, [2]), (3, [2, 3]), (8, [2, 4, 8]), (12, [2, 4, 8, 12]), (64, [2, 4, 8, 16, 32, 64])],
)
def test_preferred_batches(largest: int, preferred: list[int]) -> None:
    assert preferred_batches(largest) == preferred


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_model_is_the_one_that_the_configuration_describes(
    schema: Any, plain: Bundle, precision: str, tmp_path: Path
) -> None:
    """fp16 has its weights in a file of their own."""
    plan = make_plan(plain, precision=precision, provider="cpu")
    write_deployment(tmp_path / "out", plan, ["triton"])
    folder = tmp_path / "out/triton" / plan.model_name
    config = text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())
    outputs = call_as_triton_would(config, folder, [(3, 6, 8)])
    assert outputs[0].shape == (config.max_batch_size, 7)


def test_the_model_of_any_size(schema: Any, odd: Bundle, tmp_path: Path) -> None:
    plan = make_plan(odd, provider="cpu", max_batch=3)
    write_deployment(tmp_path / "out", plan, ["triton"])
    folder = tmp_path / "out/triton" / plan.model_name
    config = text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())
    outputs = call_as_triton_would(config, folder, [(6, 8, 3), (11, 5, 3)])
    assert all(np.allclose(output.sum(axis=1), 1) for output in outputs)
    labels = (folder / "labels.txt").read_text(encoding="utf-8").split("\n")
    assert len(labels) == len(ODD_CLASSES) + 1
    assert labels[2] == "line\\nbreak"


def call_as_triton_would(config: Any, folder: Path, sizes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """Hold the configuration against the model file as Triton's backend does, and run the largest batch."""
    session = onnxruntime.InferenceSession(str(folder / "1/model.onnx"), providers=["CPUExecutionProvider"])
    (given,), (got,) = session.get_inputs(), session.get_outputs()
    assert (given.name, got.name) == (config.input[0].name, config.output[0].name)
    dims = [side if isinstance(side, int) else -1 for side in given.shape]
    assert dims == [-1, *config.input[0].dims]
    assert [side if isinstance(side, int) else -1 for side in got.shape] == [-1, *config.output[0].dims]
    dtype = {2: np.uint8, 11: np.float32}[config.input[0].data_type]
    assert SHAPES[given.type][1] is dtype
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (config.max_batch_size, *size)).astype(dtype) for size in sizes]
    return [session.run([got.name], {given.name: batch})[0] for batch in images]


def test_an_engine_takes_the_models_place(schema: Any, plain: Bundle, tmp_path: Path) -> None:
    engine = tmp_path / "somewhere.engine"
    engine.write_bytes(b"a plan")
    plan = make_plan(plain, precision="int8", engine=engine, model_name="mine")
    write_deployment(tmp_path / "out", plan, ["triton"])
    folder = tmp_path / "out/triton/mine"
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert files == ["1/model.plan", "config.pbtxt", "labels.txt"]
    assert (folder / "1/model.plan").read_bytes() == b"a plan"
    config = text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())
    assert (config.name, config.backend) == ("mine", "tensorrt")
    assert not config.HasField("optimization")
    assert config.instance_group[0].kind == schema.ModelInstanceGroup.KIND_GPU
