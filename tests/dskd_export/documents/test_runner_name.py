from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from dskd_export.documents.runner_name import RunnerChoice, RunnerName

KNOWN = ["torch:cpu:fp32", "onnxruntime:tensorrt:int8", "tensorrt:cuda:fp16"]


@pytest.mark.parametrize("text", KNOWN)
def test_parts_and_text_are_the_same_name(text: str) -> None:
    name = RunnerName(text)
    assert RunnerName.of(name.kind, name.provider, name.precision) == name == text
    assert f"{name.kind}:{name.provider}:{name.precision}" == text
    assert {name: 1}[text] == 1  # type: ignore[index]


@pytest.mark.parametrize(
    "text", ["", "torch", "torch:cpu", "a:b:c:d", "torch:cpu:fp32\n", "Torch:cpu:fp32", "golden.npz"]
)
def test_what_is_no_name_is_refused_by_hand_and_in_a_document(text: str) -> None:
    with pytest.raises(ValueError, match="onnxruntime:cpu:int8"):
        RunnerName(text)
    with pytest.raises(ValidationError):
        TypeAdapter(RunnerName).validate_python(text)


def test_a_document_gives_the_name_back_as_text() -> None:
    adapter = TypeAdapter(RunnerName)
    name = adapter.validate_python("onnxruntime:cpu:int8")
    assert (type(name), name.precision) == (RunnerName, "int8")
    assert adapter.dump_json(name) == b'"onnxruntime:cpu:int8"'


def test_only_runners_that_exist_can_be_chosen() -> None:
    adapter = TypeAdapter(RunnerChoice)
    assert [adapter.validate_python(text) for text in KNOWN] == KNOWN
    for text in ("torch:tensorrt:fp32", "tensorrt:cpu:fp32", "openvino:cpu:fp32"):
        assert RunnerName(text) == text
        with pytest.raises(ValidationError):
            adapter.validate_python(text)
