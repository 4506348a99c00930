from __future__ import annotations

import pytest
import torch
from support import make_model

from dskd_compress.catalogue.survey import create_on_meta, survey_architecture
from dskd_compress.models import count_macs, count_parameters
from dskd_compress.timm_import import import_timm
from dskd_export.errors import ModelError


@pytest.mark.parametrize(
    ("name", "kind", "layout", "heads"),
    [
        ("test_resnet", "cnn", "NCHW", ["linear"]),
        ("test_vit", "vit", "tokens", ["linear"]),
        ("test_convnext", "cnn", "NCHW", ["linear"]),
        ("mobilevit_xxs", "vit", "NCHW", ["linear"]),  # convolutions with attention between them
        ("shvit_s1", "vit", "NCHW", ["linear"]),  # attention by another name
        ("regnety_002", "cnn", "NCHW", ["linear"]),  # squeeze and excitation is none
    ],
)
def test_against_the_model_with_values(name: str, kind: str, layout: str, heads: list[str]) -> None:
    small = None if name.startswith("test_") else 64  # at their own size the counting takes long
    survey = survey_architecture(name, input_size=small)
    model = import_timm().create_model(name).eval()
    size = model.pretrained_cfg["input_size"] if small is None else (3, small, small)
    assert survey.parameters == count_parameters(model)
    assert survey.macs == count_macs(model, size)
    assert (survey.kind, survey.input_size, survey.model_class) == (kind, size, type(model).__name__)
    assert survey.taps["map"].layout == layout
    assert survey.heads["vector"] == heads
    with torch.no_grad():
        features = model.forward_features(torch.zeros(1, *size))
    assert survey.taps["vector"].channels == model.forward_head(features, pre_logits=True).shape[1]
    assert survey.refused == {}


def test_an_architecture_without_a_classifier_gets_one() -> None:
    assert survey_architecture("vit_small_patch14_dinov2").heads["vector"] == ["linear"]


def test_what_cannot_teach_or_learn_says_why() -> None:
    survey = survey_architecture("qwen3_vit_88m_enc")
    assert survey.taps == {}
    assert "pooled" in survey.refused["model"]
    assert "resnet19" in survey_architecture("resnet19").refused["model"]


def test_the_largest_are_not_counted_unless_asked() -> None:
    assert survey_architecture("test_resnet", count_up_to=1000).macs is None
    assert survey_architecture("test_resnet", count_up_to=None).macs


def test_no_weight_is_allocated() -> None:
    model = create_on_meta("vit_giant_patch14_224", None, 1000)  # 4 GB
    assert all(parameter.is_meta for parameter in model.parameters())
    with pytest.raises(ModelError):
        create_on_meta("resnet19", None, 1000)
    assert not make_model("test_resnet").fc.weight.is_meta  # type: ignore[union-attr]
