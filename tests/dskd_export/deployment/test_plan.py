from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from deployment_support import plain_bundle

from dskd_export.bundle import Bundle
from dskd_export.deployment import make_plan
from dskd_export.errors import UsageError


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return plain_bundle(tmp_path / "bundle")


def test_the_defaults(bundle: Bundle) -> None:
    plan = make_plan(bundle)
    assert (plan.precision, plan.model_name, plan.max_batch) == ("fp32", "resnet18_fp32", 8)
    assert (plan.devices, plan.provider, plan.engine) == (("jetson", "server"), "cuda", None)
    assert plan.shape(2) == "input:2x3x6x8"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"precision": "bf16"}, "holds no model of precision bf16; it holds fp16, fp32, int8"),
        ({"max_batch": 0}, "0 images cannot be a batch"),
        ({"max_batch": 1025}, "1025 images cannot be a batch"),
        ({"provider": "cuad"}, "There is no 'cuad' here"),
        ({"devices": ("phone",)}, "There is no 'phone' here"),
        ({"model_name": "a/b"}, "'a/b' cannot name a model"),
        ({"engine": Path("nowhere.engine")}, "nowhere.engine is no engine"),
    ],
)
def test_what_cannot_be_deployed(bundle: Bundle, choice: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace(".", r"\.")):
        make_plan(bundle, **choice)


def test_a_precision_that_the_provider_has_no_mode_for(tmp_path: Path) -> None:
    from bundle_support import bundle_arguments

    from dskd_export.bundle import open_bundle, write_bundle

    arguments = bundle_arguments()
    arguments["models"]["bf16"] = arguments["models"]["fp32"]
    write_bundle(tmp_path / "b", **arguments)
    bundle = open_bundle(tmp_path / "b")
    with pytest.raises(UsageError, match="cannot tell ONNX Runtime's TensorRT provider to compute in bf16"):
        make_plan(bundle, precision="bf16", provider="tensorrt")
    engine = tmp_path / "model.engine"
    engine.write_bytes(b"engine")
    assert make_plan(bundle, precision="bf16", provider="tensorrt", engine=engine).engine == engine


def test_an_empty_engine(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(UsageError, match="is no engine"):
        make_plan(bundle, engine=tmp_path / "empty")
