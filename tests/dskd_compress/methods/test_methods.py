"""The table of methods, and how a student and a teacher are put together."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from support import make_format, make_model, make_pair
from torch import Tensor

from dskd_compress.config import (
    DiffKdMethod,
    DistMethod,
    DkdMethod,
    DskdMethod,
    FeatureMethod,
    FitNetMethod,
    KdMethod,
    LshfmMethod,
    Method,
    NoneMethod,
)
from dskd_compress.methods import MethodTask, Pair, create_task, find_taps, statistics_batches
from dskd_compress.methods.base import StepContext
from dskd_compress.methods.diffkd import DiffKdModule
from dskd_compress.methods.dist import DistModule
from dskd_compress.methods.dkd import DkdModule
from dskd_compress.methods.dskd.method import DskdModule
from dskd_compress.methods.fitnet import FitNetModule
from dskd_compress.methods.kd import KdModule
from dskd_compress.methods.lshfm import LshfmModule
from dskd_compress.methods.none import CrossEntropyModule
from dskd_compress.models import state_sha256
from dskd_export.errors import ModelError, TapError

CPU = torch.device("cpu")
# Every method of the recipe: its module, the term that is its own, and all its terms.
EXPECTED = {
    NoneMethod: (CrossEntropyModule, "ce", {"ce"}),
    KdMethod: (KdModule, "kd", {"ce", "kd"}),
    DkdMethod: (DkdModule, "dkd", {"ce", "dkd"}),
    DistMethod: (DistModule, "dist", {"ce", "dist"}),
    FitNetMethod: (FitNetModule, "hint", {"ce", "hint"}),
    LshfmMethod: (LshfmModule, "lsh", {"ce", "lsh"}),
    DiffKdMethod: (DiffKdModule, "feature", {"ce", "diffusion", "feature", "denoised_logit"}),
    DskdMethod: (DskdModule, "lsh", {"ce", "diffusion", "lsh", "head", "logit"}),
}
METHODS = get_args(get_args(Method)[0])
TAUGHT = [kind for kind in METHODS if kind is not NoneMethod]
READS_FEATURES = get_args(FeatureMethod)
PAIRS = {  # student, teacher, image size
    "cnn from cnn": ("test_efficientnet", "test_resnet", 64),
    "cnn from vit": ("test_efficientnet", "test_vit", 160),
    "vit from cnn": ("test_vit", "test_resnet", 160),
}


def make_task(method: Method, pair: Pair, seed: int = 0) -> MethodTask:
    return create_task(method, pair.student, pair, label_smoothing=0.0, seed=seed, device=CPU)


def batch_of(task: MethodTask, size: int) -> tuple[Tensor, Tensor]:
    """Images, and labels that the teacher agrees with, so that no image is left out."""
    images_BCHW = torch.randn(8, 3, size, size, generator=torch.Generator().manual_seed(0))
    assert task.teacher is not None
    return images_BCHW, task.teacher(images_BCHW).logits_BK.argmax(dim=1)


def test_every_method_of_the_recipe_is_known_here() -> None:
    assert set(METHODS) == set(EXPECTED)
    names = [kind().name for kind in METHODS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("kind", METHODS)
def test_every_method_makes_its_task(kind: type, cnn_pair: Pair, images_BCHW: Tensor, labels_B: Tensor) -> None:
    module, _, terms = EXPECTED[kind]
    method = kind()
    assert statistics_batches(method) == (50 if kind in READS_FEATURES else 0)
    pair = cnn_pair if kind in TAUGHT else None
    task = create_task(method, cnn_pair.student, pair, label_smoothing=0.1, seed=0, device=CPU)
    assert type(task.module) is module
    assert set(task.taps) == ({"teacher", "student"} if kind in READS_FEATURES else set())
    assert (task.teacher is not None) is (kind in TAUGHT)
    assert task.module.student is cnn_pair.student
    assert task.module.label_smoothing == 0.1
    task.train()
    assert set(task(images_BCHW, labels_B)["terms"]) == terms


@pytest.mark.parametrize("pair_name", PAIRS)
@pytest.mark.parametrize("kind", TAUGHT)
def test_one_step_changes_every_trainable_parameter_and_nothing_of_the_teacher(kind: type, pair_name: str) -> None:
    student, teacher, size = PAIRS[pair_name]
    pair = make_pair(student, teacher, size)
    task = make_task(kind(), pair)
    images_BCHW, labels_B = batch_of(task, size)
    task.fit_statistics([images_BCHW])
    task.train()
    frozen, before = state_sha256(pair.teacher), {n: p.clone() for n, p in task.module.named_parameters()}
    optimizer = torch.optim.SGD(task.module.parameters(), lr=0.1)
    task(images_BCHW, labels_B, StepContext(progress=0.5))["loss"].backward()
    for name, parameter in task.module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    optimizer.step()
    assert [name for name, p in task.module.named_parameters() if torch.equal(p, before[name])] == []
    assert state_sha256(pair.teacher) == frozen
    assert all(parameter.grad is None for parameter in pair.teacher.parameters())


@pytest.mark.parametrize("kind", TAUGHT)
def test_every_method_learns_one_batch(kind: type, cnn_pair: Pair) -> None:
    """The term that is the method's own falls, with nothing else to teach the student."""
    settings = {"ce_weight": 0.0, "ramp_fraction": 0.0}
    method = kind(**{key: settings[key] for key in settings.keys() & kind.model_fields})  # type: ignore[attr-defined]
    task = make_task(method, cnn_pair)
    images_BCHW, labels_B = batch_of(task, 64)
    task.fit_statistics([images_BCHW])
    task.train()
    optimizer = torch.optim.Adam(task.module.parameters(), lr=1e-2)
    losses = []
    torch.manual_seed(0)
    for _ in range(25):
        result = task(images_BCHW, labels_B)
        optimizer.zero_grad()
        result["loss"].backward()
        optimizer.step()
        losses.append(float(result["terms"][EXPECTED[kind][1]].detach()))
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])


@pytest.mark.parametrize("kind", METHODS)
def test_the_seed_decides_the_heads(kind: type) -> None:
    def heads(seed: int) -> dict[str, Tensor]:
        pair = make_pair("test_efficientnet", "test_resnet")
        torch.manual_seed(99 + seed)  # whatever was drawn before does not matter
        return make_task(kind(), pair, seed).get_task_state()

    first, again, other = heads(0), heads(0), heads(1)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    drawn = [name for name, value in first.items() if value.ndim > 1]
    assert all(not torch.equal(first[name], other[name]) for name in drawn)
    assert bool(drawn) is (kind in READS_FEATURES)


def test_terms_of_weight_zero_are_not_there(cnn_pair: Pair, images_BCHW: Tensor, labels_B: Tensor) -> None:
    task = make_task(DskdMethod(logit_weight=0, head_weight=0), cnn_pair)
    task.train()
    assert set(task(images_BCHW, labels_B)["terms"]) == {"ce", "diffusion", "lsh"}


def test_kd_is_the_weighted_sum(cnn_pair: Pair, images_BCHW: Tensor, labels_B: Tensor) -> None:
    def terms(ce_weight: float, kd_weight: float) -> dict[str, float]:
        method = KdMethod(ce_weight=ce_weight, kd_weight=kd_weight, temperature=2.0)
        task = create_task(method, cnn_pair.student, cnn_pair, label_smoothing=0, seed=0, device=CPU)
        task.eval()
        result = task(images_BCHW, labels_B)
        agreement = float(result["monitors"]["student_agrees_with_teacher"])
        same = result["output"].argmax(1) == cnn_pair.teacher(images_BCHW).argmax(1)
        assert agreement == pytest.approx(float(same.float().mean()))
        return {name: float(term.detach()) for name, term in result["terms"].items()}

    plain, weighted = terms(1.0, 1.0), terms(0.25, 3.0)
    assert weighted["ce"] == pytest.approx(0.25 * plain["ce"], rel=1e-5)
    assert weighted["kd"] == pytest.approx(3 * plain["kd"], rel=1e-5)
    assert plain["kd"] > 0


@pytest.mark.parametrize("kind", TAUGHT)
def test_other_classes_are_refused(kind: type, cnn_pair: Pair) -> None:
    cnn_pair.teacher.reset_classifier(11)  # type: ignore[operator]
    with pytest.raises(ModelError, match=r"teacher test_resnet has 11 classes, the student 10.*teacher\.fit"):
        make_task(kind(), cnn_pair)


# --- the pair


def test_a_teacher_of_free_size_gets_the_images_of_the_student() -> None:
    pair = Pair(make_model("test_efficientnet"), make_format(48), make_model("test_resnet"), make_format(64))
    assert pair.teacher_size == (3, 48, 48)
    images_BCHW = torch.randn(2, 3, 48, 48)
    assert pair.adapter()(images_BCHW) is images_BCHW


def test_a_teacher_of_fixed_size_gets_its_own() -> None:
    pair = Pair(make_model("test_efficientnet"), make_format(48), make_model("test_vit"), make_format(160))
    assert pair.teacher_size == (3, 160, 160)
    assert pair.adapter()(torch.randn(2, 3, 48, 48)).shape == (2, 3, 160, 160)


def test_a_teacher_gets_its_own_normalisation() -> None:
    student, teacher = make_format(32, mean=0.5, std=0.25), make_format(32, mean=0.1, std=0.5)
    pair = Pair(make_model("test_efficientnet"), student, make_model("test_resnet"), teacher)
    pixels = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(pair.adapter()((pixels - 0.5) / 0.25), (pixels - 0.1) / 0.5)


@pytest.mark.parametrize(
    ("method", "student", "teacher", "kind"),
    [
        (
            DskdMethod(tap="auto"),
            "test_efficientnet",
            "test_resnet",
            "map",
        ),  # two CNNs whose heads pool by the mean
        (DskdMethod(tap="vector"), "test_efficientnet", "test_resnet", "vector"),
        (DskdMethod(), "test_efficientnet", "test_vit", "vector"),
        (DskdMethod(), "test_vit", "test_resnet", "vector"),
        (FitNetMethod(), "test_efficientnet", "test_vit", "map"),  # features are compared, no head reads them
        (DiffKdMethod(), "test_vit", "test_resnet", "map"),
        (DiffKdMethod(tap="vector"), "test_vit", "test_resnet", "vector"),
        (LshfmMethod(), "test_efficientnet", "test_resnet", "vector"),
        (LshfmMethod(tap="map"), "test_efficientnet", "test_vit", "map"),
    ],
)
def test_the_taps_of_a_pair(method: FeatureMethod, student: str, teacher: str, kind: str) -> None:
    pair = make_pair(student, teacher, size=160)
    taps = find_taps(method, pair)
    assert taps.student.kind == taps.teacher.kind == kind
    assert (taps.head is not None) is isinstance(method, DskdMethod)
    for tap, model in ((taps.student, pair.student), (taps.teacher, pair.teacher)):
        model.eval()
        with torch.no_grad():
            features = model.forward_features(torch.randn(2, 3, 160, 160))  # type: ignore[operator]
            feat, _ = tap.read(model, features)
        assert feat.shape[1] == tap.channels
        assert (tuple(feat.shape[2:]) or None) == tap.grid


@pytest.mark.parametrize("kind", READS_FEATURES)
def test_a_tap_that_a_model_lacks(kind: type) -> None:
    pair = make_pair("test_efficientnet", "test_resnet")
    pair.student.forward_features = lambda x: x.mean(dim=(2, 3))  # type: ignore[assignment, method-assign]
    with pytest.raises(TapError):
        find_taps(kind(tap="map"), pair)


@pytest.mark.parametrize(
    "method", [FitNetMethod(), LshfmMethod(), DiffKdMethod(), DskdMethod()], ids=lambda m: m.name
)
def test_a_teacher_with_several_heads_serves(method: FeatureMethod, labels_B: Tensor) -> None:
    size = {"img_size": 64, "patch_size": 16}
    teacher = make_model("deit_tiny_distilled_patch16_224", seed=1, **size)
    pair = Pair(make_model("test_efficientnet"), make_format(64), teacher, make_format(64))
    task = make_task(method, pair)
    task.train()
    result = task(torch.randn(8, 3, 64, 64), labels_B)
    result["loss"].backward()
    assert torch.isfinite(result["loss"])
