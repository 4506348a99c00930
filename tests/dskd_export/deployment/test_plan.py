from __future__ import annotations

from pathlib import Path
from typing import Any

import engine_contract
import pytest
from deployment_support import plain_bundle
from engine_machines import bundle as classifier_bundle  # fixtures
from engine_machines import classifier, make_machine
from engine_support import build_arguments

from dskd_export.bundle import Bundle
from dskd_export.deployment import make_plan
from dskd_export.deployment.triton import config_pbtxt
from dskd_export.engine.builder import build_engine
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
        ({"precision": "bf16"}, "bf16; it holds fp16, fp32, int8"),
        ({"max_batch": 0}, "--max-batch must be 1 to 1024, not 0"),
        ({"max_batch": 1025}, "not 1025"),
        ({"provider": "cuad"}, "--provider: unknown value 'cuad'"),
        ({"devices": ("phone",)}, "--device: unknown value 'phone'"),
        ({"model_name": "a/b"}, "'a/b'"),
        ({"engine": Path("nowhere.engine")}, "nowhere.engine is missing"),
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
    with pytest.raises(UsageError, match="bf16; it has fp32, fp16, int8"):
        make_plan(bundle, precision="bf16", provider="tensorrt")
    engine = tmp_path / "model.engine"
    engine.write_bytes(b"engine")
    assert make_plan(bundle, precision="bf16", provider="tensorrt", engine=engine).engine == engine


def test_an_empty_engine(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(UsageError, match="empty is missing or empty"):
        make_plan(bundle, engine=tmp_path / "empty")


def test_an_engine_that_build_made(make_machine: Any, classifier_bundle: Bundle, tmp_path: Path) -> None:
    machine = make_machine(engine_contract.SERVES["common.py"][0])

    def build(precision: str = "fp16", **settings: Any) -> Path:
        engines = engines_folder(classifier_bundle.folder)
        return build_engine(classifier_bundle, precision, engines, *build_arguments(**settings), run=machine.run)[
            0
        ]

    engine = build(batches=(1, 8))
    plan = make_plan(classifier_bundle, precision="fp16", engine=engine)
    assert plan.profiles == 2
    assert b'profile: [ "0", "1" ]' in config_pbtxt(plan)
    assert plan.engine_facts.startswith("The engine was built by tensorrt 10.")
    assert "for Orin (nvgpu)" in plan.engine_facts
    with pytest.raises(UsageError, match="fp16, but --precision is fp32"):
        make_plan(classifier_bundle, precision="fp32", engine=engine)
    with pytest.raises(UsageError, match="1, 2 to 8, not 1 to 16"):
        make_plan(classifier_bundle, precision="fp16", engine=engine, max_batch=16)
    with pytest.raises(UsageError, match="another bundle"):
        make_plan(plain_bundle(tmp_path / "other"), precision="fp16", engine=engine)
    with pytest.raises(UsageError, match="--refit-from"):
        make_plan(classifier_bundle, precision="fp16", engine=build(strip="identical"))
    engine.write_bytes(b"another")
    with pytest.raises(DataError, match="sha256"):
        make_plan(classifier_bundle, precision="fp16", engine=engine)
