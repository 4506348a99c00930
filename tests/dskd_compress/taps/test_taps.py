"""Taps of real architectures: the way from a tap through the model's own head gives the model's own logits."""

from __future__ import annotations

import copy

import pytest
import torch
from support import CLASSES, make_model

from dskd_compress.taps import (
    Tap,
    TapHead,
    choose_tap,
    find_head,
    find_head_paths,
    find_tap,
    find_teacher_tap,
    probe,
)
from dskd_compress.timm_import import import_timm
from dskd_export.errors import TapError

# name, input size, vector head linear?, map: (layout, prefix tokens, head linear?), or why there is none
FAMILIES = [
    ("resnet10t", 64, True, ("NCHW", 0, True)),
    ("mobilenetv3_small_050", 64, True, ("NCHW", 0, False)),  # head_hidden_size 1024, num_features 288
    ("mobilenetv4_conv_small_035", 64, True, ("NCHW", 0, False)),  # another one
    ("efficientnet_lite0", 64, True, ("NCHW", 0, True)),
    ("convnext_atto", 64, True, ("NCHW", 0, False)),  # norm in the head
    ("densenet121", 64, True, ("NCHW", 0, True)),
    ("dla46_c", 64, False, ("NCHW", 0, False)),  # classifier is a 1x1 convolution
    ("repvit_m0_9", 64, False, ("NCHW", 0, False)),  # two heads, averaged
    ("mobilevit_xxs", 64, True, ("NCHW", 0, True)),
    ("caformer_s18", 64, False, ("NCHW", 0, False)),  # an MLP for a classifier
    ("mambaout_femto", 64, True, ("NHWC", 0, False)),
    ("swin_tiny_patch4_window7_224", 224, True, ("NHWC", 0, True)),
    ("levit_128s", 224, False, ("tokens", 0, False)),  # distilled: two heads, averaged
    ("mixer_s32_224", 224, True, ("tokens", 0, False)),  # zero-initialised head: nothing can be proven linear
    ("vit_tiny_patch16_224", 224, True, "does not read its spatial map"),  # class token
    ("eva02_tiny_patch14_224", 224, True, ("tokens", 1, False)),  # a prefix token, mean pooling
    ("vit_base_patch32_siglip_256", 256, True, ("tokens", 0, False)),  # attention pooling
    ("xcit_nano_12_p16_224", 224, True, "does not read its spatial map"),
    ("pit_ti_224", 224, True, "no spatial map"),
    ("sequencer2d_s", 224, True, ("NHWC", 0, False)),
]


@pytest.mark.parametrize(("name", "size", "vector_linear", "map_expected"), FAMILIES, ids=[f[0] for f in FAMILIES])
def test_taps_lead_to_the_models_own_logits(
    name: str, size: int, vector_linear: bool, map_expected: tuple[str, int, bool] | str
) -> None:
    model = make_model(name).eval()
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = model(images)
        features = model.forward_features(images)
    seen = probe(model, (3, size, size))
    scale = expected.abs().max().clamp(min=1e-6)

    vector = find_tap(model, seen, "vector")
    assert vector.channels == model.head_hidden_size
    head = find_head(model, seen, vector)
    assert (head.linear is not None) == vector_linear
    with torch.no_grad():
        feat, prefix = vector.read(model, features)
        assert feat.shape == (2, vector.channels)
        assert float((head(feat, prefix) - expected).abs().max() / scale) < 1e-4

    if isinstance(map_expected, str):
        with pytest.raises(TapError, match=map_expected):
            find_head(model, seen, find_tap(model, seen, "map"))
        return
    layout, prefix_tokens, map_linear = map_expected
    tap = find_tap(model, seen, "map")
    assert (tap.layout, tap.prefix_tokens) == (layout, prefix_tokens)
    head = find_head(model, seen, tap)
    assert (head.linear is not None) == map_linear
    with torch.no_grad():
        feat, prefix = tap.read(model, features)
        assert feat.shape == (2, tap.channels, *tap.grid)
        assert torch.equal(tap.restore(feat, prefix), features)
        assert float((head(feat, prefix) - expected).abs().max() / scale) < 1e-4


def test_the_map_is_the_image_upright() -> None:
    """A token map must not be transposed: what is bright above stays above."""
    model = make_model("test_vit4").eval()
    seen = probe(model, (3, 160, 160))
    tap = find_tap(model, seen, "map")
    assert tap.grid is not None
    height, width = tap.grid
    numbered = torch.arange(height * width, dtype=torch.float32).view(1, -1, 1).expand(1, -1, tap.channels)
    prefix = torch.zeros(1, tap.prefix_tokens, tap.channels)
    feat, _ = tap.read(model, torch.cat((prefix, numbered), dim=1))
    assert torch.equal(feat[0, 0], torch.arange(height * width, dtype=torch.float32).view(height, width))


# Teachers whose classifiers do not all read the pooled vector: the way that they have all the same.
SEVERAL_HEADS = [
    ("deit_tiny_distilled_patch16_224", 224, {}, "vector", "prefix", 2 * 192, "forward_head"),
    ("crossvit_tiny_240", 240, {}, "vector", "vector", 96 + 192, "mean of heads, each of its part"),
    ("efficientvim_m1", 128, {}, "vector", "vector", 960, "forward_head of parts"),
    ("efficientvim_m1_dist", 128, {}, "vector", "vector", 960, "forward_head of parts"),
    ("volo_d1_224", 96, {"img_size": 96}, "map", "tokens", 384, "forward_head"),
]


@pytest.mark.parametrize(
    ("name", "size", "kwargs", "kind", "layout", "channels", "path"),
    SEVERAL_HEADS,
    ids=[c[0] for c in SEVERAL_HEADS],
)
def test_a_teacher_of_several_heads_guides(
    name: str, size: int, kwargs: dict[str, object], kind: str, layout: str, channels: int, path: str
) -> None:
    model = make_model(name, **kwargs).eval()
    for part, parameter in model.named_parameters():  # different heads, so that a mix-up shows
        if part.startswith(("head", "aux_head", "weights")):
            torch.nn.init.normal_(parameter, std=0.5)
    seen = probe(model, (3, size, size))
    student = make_model("test_resnet")
    student_seen = probe(student, (3, 64, 64))
    assert choose_tap("auto", model, seen, student, student_seen, guided=True) == kind
    tap, head = find_teacher_tap(model, seen, kind)  # type: ignore[arg-type]
    assert (tap.layout, tap.channels, head.path, head.linear) == (layout, channels, path, None)
    images_BCHW = torch.randn(2, 3, size, size)
    with torch.no_grad():
        feat, prefix_BPC = tap.read(model, model.forward_features(images_BCHW))  # type: ignore[operator]
        torch.testing.assert_close(head(feat, prefix_BPC), model(images_BCHW), rtol=1e-4, atol=1e-4)
    feat.requires_grad_()
    (gradient,) = torch.autograd.grad(head(feat, prefix_BPC)[:, 0].sum(), feat)
    assert bool(gradient.any())
    if name == "volo_d1_224":
        with pytest.raises(TapError, match=r"several heads\. Use method\.tap: map, .*teacher\.fit: probe"):
            find_teacher_tap(model, seen, "vector")


def test_a_distilled_deit_as_a_student_is_read_at_its_vector() -> None:
    model = make_model("deit_tiny_distilled_patch16_224")
    seen = probe(model, (3, 224, 224))
    tap = find_tap(model, seen, "vector")
    assert (tap.layout, tap.channels) == ("vector", 192)
    with pytest.raises(TapError, match="several heads"):
        find_head(model, seen, tap)


@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", 64), ("vit_tiny_patch16_224", 224), ("swin_tiny_patch4_window7_224", 224)]
)
def test_shapes_are_found_without_values(name: str, size: int) -> None:
    """On the meta device: the same taps, and the proven head is among the ways of the right shape."""
    real = make_model(name)
    with torch.device("meta"):
        shapes = make_model(name)
    seen, seen_meta = probe(real, (3, size, size)), probe(shapes, (3, size, size))
    assert seen.real
    assert not seen_meta.real
    for kind in ("vector", "map"):
        tap = find_tap(shapes, seen_meta, kind)
        assert tap == find_tap(real, seen, kind)
        paths = [head.path for head in find_head_paths(shapes, seen_meta, tap)]
        assert paths == [head.path for head in find_head_paths(real, seen, tap)]
        try:
            assert find_head(real, seen, tap).path in paths
        except TapError:
            assert kind == "map"  # the class token of a ViT: values are needed to see that
        with pytest.raises(ValueError, match="meta"):
            find_head(shapes, seen_meta, tap)


@pytest.mark.parametrize("name", ["qwen3_vit_88m_enc", "mobilenetv5_300m_enc"])
def test_an_encoder_that_cannot_classify_is_refused(name: str) -> None:
    with torch.device("meta"):
        model = import_timm().create_model(name)
    with pytest.raises(TapError, match="gives no pooled vector before its classifier"):
        probe(model, model.pretrained_cfg["input_size"])


def test_one_channel_more_than_the_model_takes_is_named() -> None:
    with pytest.raises(TapError, match="does not run on 64x64 images with 1 channels"):
        probe(make_model("test_resnet"), (1, 64, 64))


def test_a_model_without_a_classifier_is_refused() -> None:
    with pytest.raises(TapError, match="has no classifier"):
        probe(_headless(), (3, 64, 64))


def _headless() -> torch.nn.Module:
    model = make_model("test_resnet")
    model.reset_classifier(0)
    return model


def test_a_size_that_the_model_does_not_take_is_named() -> None:
    with pytest.raises(TapError, match="does not run on 100x100"):
        probe(make_model("test_vit"), (3, 100, 100))


def test_something_that_is_no_timm_model_is_refused() -> None:
    with pytest.raises(TapError, match="no forward_features"):
        probe(torch.nn.Linear(3, 3), (3, 8, 8))


def test_probing_leaves_mode_and_statistics_alone() -> None:
    model = make_model("test_resnet").train()
    before = copy.deepcopy(model.state_dict())
    seen = probe(model, (3, 64, 64))
    find_head(model, seen, find_tap(model, seen, "map"))
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("requested", "teacher", "student", "size", "chosen"),
    [
        ("auto", "test_resnet", "test_efficientnet", 64, "map"),
        ("auto", "test_resnet", "test_efficientnet", 32, "vector"),  # maps of one place
        ("auto", "test_vit", "test_resnet", 160, "vector"),
        ("auto", "test_resnet", "test_vit", 160, "vector"),
        ("auto", "test_convnext", "test_resnet", 64, "vector"),  # its head normalises after pooling
        ("vector", "test_resnet", "test_efficientnet", 64, "vector"),
        ("map", "test_convnext", "test_resnet", 64, "map"),
    ],
)
def test_choice_of_the_tap_where_the_head_guides(
    requested: str, teacher: str, student: str, size: int, chosen: str
) -> None:
    models = make_model(teacher), make_model(student)
    seen = [probe(model, (3, size, size)) for model in models]
    assert choose_tap(requested, models[0], seen[0], models[1], seen[1], guided=True) == chosen  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("requested", "teacher", "student", "size", "chosen"),
    [
        ("auto", "test_resnet", "test_efficientnet", 64, "map"),
        ("auto", "test_resnet", "test_efficientnet", 32, "vector"),  # maps of one place
        ("auto", "test_vit", "test_convnext", 160, "map"),  # whatever the head makes of them
        ("auto", "pit_ti_224", "test_resnet", 224, "vector"),  # no map
        ("vector", "test_resnet", "test_efficientnet", 64, "vector"),
        ("map", "test_resnet", "test_efficientnet", 32, "map"),
    ],
)
def test_choice_of_the_tap_where_features_are_compared(
    requested: str, teacher: str, student: str, size: int, chosen: str
) -> None:
    models = make_model(teacher), make_model(student)
    seen = [probe(model, (3, size, size)) for model in models]
    assert choose_tap(requested, models[0], seen[0], models[1], seen[1]) == chosen  # type: ignore[arg-type]


def test_a_view_on_a_head_is_not_copied() -> None:
    model = make_model("test_resnet")
    head = TapHead(model, Tap("vector", 96, None, "vector"), model.fc, model.fc)
    assert copy.deepcopy(head) is head
    assert head(torch.zeros(1, 96)).shape == (1, CLASSES)
