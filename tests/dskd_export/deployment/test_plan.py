from __future__ import annotations

from pathlib import Path
from typing import Any

import engine_contract
import pytest
from deployment_support import plain_bundle
from engine_machines import bundle as classifier_bundle  # fixtures
from engine_machines import classifier, make_machine

from dskd_export.bundle import Bundle
from dskd_export.deployment import make_plan
from dskd_export.deployment.triton import config_pbtxt
from dskd_export.engine.builder import BuildSettings, build_engine
from dskd_export.engine.document import engines_folder
from dskd_export.errors import DataError, UsageError

__all__ = ["classifier", "classifier_bundle", "make_machine"]


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


def test_an_engine_that_build_made(make_machine: Any, classifier_bundle: Bundle, tmp_path: Path) -> None:
    machine = make_machine(engine_contract.SERVES["common.py"][0])

    def build(precision: str = "fp16", **settings: Any) -> Path:
        engines = engines_folder(classifier_bundle.folder)
        return build_engine(classifier_bundle, precision, engines, BuildSettings(**settings), run=machine.run)[0]

    engine = build(batches=(1, 8))
    plan = make_plan(classifier_bundle, precision="fp16", engine=engine)
    assert plan.profiles == 2
    assert b'profile: [ "0", "1" ]' in config_pbtxt(plan)
    assert plan.engine_facts.startswith("The engine was built by tensorrt 10.")
    assert "for Orin (nvgpu)" in plan.engine_facts
    with pytest.raises(UsageError, match="is of fp16, and fp32 is to be deployed"):
        make_plan(classifier_bundle, precision="fp32", engine=engine)
    with pytest.raises(UsageError, match=r"takes batches of 1, 2 to 8, and Triton is to send 1 to 16 images"):
        make_plan(classifier_bundle, precision="fp16", engine=engine, max_batch=16)
    with pytest.raises(UsageError, match="was built from another bundle"):
        make_plan(plain_bundle(tmp_path / "other"), precision="fp16", engine=engine)
    with pytest.raises(UsageError, match="holds no weights"):
        make_plan(classifier_bundle, precision="fp16", engine=build(strip="identical"))
    engine.write_bytes(b"another")
    with pytest.raises(DataError, match="its sha256 differs"):
        make_plan(classifier_bundle, precision="fp16", engine=engine)
