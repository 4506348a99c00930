from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dskd_export.deployment.render import check_model_name, escape_comment, model_name_from, quote_literal
from dskd_export.errors import UsageError

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]))


@given(TEXT)
def test_a_name_is_made_of_any_architecture(architecture: str) -> None:
    name = model_name_from(architecture, "fp16")
    assert check_model_name(name) == name
    assert name.endswith("_fp16")


def test_names_are_those_that_one_would_give() -> None:
    assert model_name_from("resnet18", "fp32") == "resnet18_fp32"
    assert model_name_from("hf-hub:timm/resnet18.a1_in1k", "int8") == "hf_hub_timm_resnet18_a1_in1k_int8"
    assert model_name_from("../..", "fp32") == "model_fp32"
    assert len(model_name_from("x" * 200, "fp32")) == 64


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "-a", "_a", "ä", "a\n", "x" * 65])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(UsageError, match="model name"):
        check_model_name(name)


@given(TEXT)
def test_a_literal_says_what_it_was_made_of(text: str) -> None:
    literal = quote_literal(text)
    assert re.fullmatch(r'"([ -~])*"', literal)
    unescaped = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), literal[1:-1])
    assert unescaped.encode("latin-1").decode() == text


@given(TEXT)
def test_a_comment_stays_one(text: str) -> None:
    shown = escape_comment(text)
    assert not re.search(r"[\n\r`*|<>\[\]\\]|//", shown)
