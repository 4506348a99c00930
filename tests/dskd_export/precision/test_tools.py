from __future__ import annotations

import sys

import pytest

from dskd_export.errors import UsageError
from dskd_export.precision.build import Settings, is_installed, list_tool_modules, tool_of
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
        ([], "fp16", {}, []),
        ([MODELOPT], "fp16", {}, []),
        ([MODELOPT, CONVERTER], "fp16", {}, [CONVERTER]),
        ([CONVERTER], "fp16", {"producer": "onnxruntime"}, [CONVERTER]),
        ([MODELOPT], "fp16", {"producer": "modelopt"}, [MODELOPT]),
        ([MODELOPT, CONVERTER], "int8", {}, []),
        ([MODELOPT], "int8", {"rest": "fp16"}, [MODELOPT]),
        ([MODELOPT], "int8", {"producer": "onnxruntime", "rest": "fp16"}, [MODELOPT]),
        ([MODELOPT], "int8", {"producer": "modelopt"}, [MODELOPT]),
        (["onnxruntime"], "int8", {"producer": "onnxruntime"}, ["onnxruntime"]),
        (["lief"], "bf16", {}, ["lief"]),
        (["onnxslim", MODELOPT], "fp8", {}, [MODELOPT, "onnxslim"]),
    ],
)
def test_the_modules_that_a_precision_lacks(absent, missing, precision, settings, named) -> None:
    absent(*missing)
    modules = list_tool_modules(precision, Settings(**settings))
    assert [module for module in modules if not is_installed(module)] == named


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_a_tool_that_cannot_make_a_precision(precision) -> None:
    with pytest.raises(UsageError, match="by ModelOpt only"):
        tool_of(precision, Settings(producer="onnxruntime"))


def test_the_converters_say_the_same(cnn, calibration) -> None:
    with pytest.raises(UsageError, match="by ModelOpt only"):
        half_precision(cnn.SerializeToString(), "bf16", calibration, producer="onnxruntime")
    made = half_precision(cnn.SerializeToString(), "fp16", calibration, producer="onnxruntime")
    assert made.metadata.producer.startswith("onnxconverter-common ")
