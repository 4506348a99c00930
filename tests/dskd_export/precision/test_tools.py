from __future__ import annotations

import sys

import pytest

from dskd_export.errors import MissingExtra, UsageError
from dskd_export.precision.build import Settings, check_precision_tool, tool_of
from dskd_export.precision.half import half_precision

MODELOPT, CONVERTER = "modelopt", "onnxconverter_common"


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch):
    def take_away(*modules: str) -> None:
        for module in modules:
            monkeypatch.setitem(sys.modules, module, None)

    return take_away


@pytest.mark.parametrize(
    ("missing", "precision", "settings", "named"),
    [
        ([], "fp16", {}, None),
        ([MODELOPT], "fp16", {}, None),
        ([MODELOPT, CONVERTER], "fp16", {}, "onnxconverter-common"),
        ([CONVERTER], "fp16", {"producer": "onnxruntime"}, "onnxconverter-common"),
        ([MODELOPT], "fp16", {"producer": "modelopt"}, "nvidia-modelopt"),
        ([MODELOPT, CONVERTER], "int8", {}, None),
        ([MODELOPT], "int8", {"rest": "fp16"}, "nvidia-modelopt"),
        ([MODELOPT], "int8", {"producer": "onnxruntime", "rest": "fp16"}, "nvidia-modelopt"),
        ([MODELOPT], "int8", {"producer": "modelopt"}, "nvidia-modelopt"),
        (["onnxruntime"], "int8", {"producer": "onnxruntime"}, "onnxruntime"),
        (["lief"], "bf16", {}, "nvidia-modelopt"),
        (["onnxslim"], "fp8", {}, "nvidia-modelopt"),
    ],
)
def test_a_precision_without_its_package_is_refused(absent, missing, precision, settings, named) -> None:
    absent(*missing)
    if named is None:
        check_precision_tool(precision, Settings(**settings))
        return
    with pytest.raises(MissingExtra, match=f"{named} is not installed; {precision} needs it") as refused:
        check_precision_tool(precision, Settings(**settings))
    extra = "onnx" if named == "onnxruntime" else "quant"
    assert refused.value.hint == f"Install it with: pip install 'dskd-compress[{extra}]'"


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_a_tool_that_cannot_make_a_precision(precision) -> None:
    with pytest.raises(UsageError, match="by ModelOpt only"):
        tool_of(precision, Settings(producer="onnxruntime"))


def test_the_converters_say_the_same(cnn, calibration) -> None:
    with pytest.raises(UsageError, match="by ModelOpt only"):
        half_precision(cnn.SerializeToString(), "bf16", calibration, producer="onnxruntime")
    made = half_precision(cnn.SerializeToString(), "fp16", calibration, producer="onnxruntime")
    assert made.metadata.producer.startswith("onnxconverter-common ")
