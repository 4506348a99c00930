"""The table of methods, and how a student and a teacher are put together."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from support import make_format, make_model, make_pair
from torch import Tensor

from dskd_compress.config import DskdMethod, KdMethod, Method, NoneMethod
from dskd_compress.methods import Pair, create_task, find_taps, needs_teacher
from dskd_compress.methods.dskd.task import DskdModule, DskdTask
from dskd_compress.methods.kd import KdModule
from dskd_compress.methods.none import CrossEntropyModule
from dskd_export.errors import ModelError, TapError

CPU = torch.device("cpu")
# Every method of the recipe: its module, whether it asks a teacher, its loss terms.
EXPECTED = {
    NoneMethod: (CrossEntropyModule, False, {"ce"}),
    KdMethod: (KdModule, True, {"ce", "kd"}),
    DskdMethod: (DskdModule, True, {"ce", "diffusion", "lsh", "head", "kd"}),
}
METHODS = get_args(get_args(Method)[0])


def test_every_method_of_the_recipe_is_known_here() -> None:
    assert set(METHODS) == set(EXPECTED)
    names = [kind().name for kind in METHODS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("kind", METHODS)
def test_every_method_makes_its_task(kind: type, cnn_pair: Pair, images_BCHW: Tensor, labels_B: Tensor) -> None:
    module, asks, terms = EXPECTED[kind]
    method = kind()
    assert needs_teacher(method) is asks
    task = create_task(
        method, cnn_pair.student, cnn_pair if asks else None, label_smoothing=0.1, seed=0, device=CPU
    )
    assert type(task.module) is module
    assert isinstance(task, DskdTask) == (kind is DskdMethod)
    assert (task.teacher is not None) is asks
    assert task.module.student is cnn_pair.student
    assert task.module.label_smoothing == 0.1
    task.train()
    assert set(task(images_BCHW, labels_B)["terms"]) == terms


@pytest.mark.parametrize("kind", METHODS)
def test_the_seed_decides_the_heads(kind: type) -> None:
    def heads(seed: int) -> dict[str, Tensor]:
        pair = make_pair("test_efficientnet", "test_resnet")
        torch.manual_seed(99 + seed)  # whatever was drawn before does not matter
        return create_task(kind(), pair.student, pair, label_smoothing=0, seed=seed, device=CPU).get_task_state()

    first, again, other = heads(0), heads(0), heads(1)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    learned = [name for name in first if name.startswith(("projection.body.0", "planes"))]
    assert all(not torch.equal(first[name], other[name]) for name in learned)
    assert bool(learned) is (kind is DskdMethod)


def test_terms_of_weight_zero_are_not_there(cnn_pair: Pair, images_BCHW: Tensor, labels_B: Tensor) -> None:
    method = DskdMethod(kd_weight=0, head_weight=0)
    task = create_task(method, cnn_pair.student, cnn_pair, label_smoothing=0, seed=0, device=CPU)
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


@pytest.mark.parametrize("method", [KdMethod(), DskdMethod()], ids=["kd", "dskd"])
def test_other_classes_are_refused(method: Method, cnn_pair: Pair) -> None:
    cnn_pair.teacher.reset_classifier(11)  # type: ignore[operator]
    with pytest.raises(ModelError, match=r"teacher test_resnet has 11 classes, the student 10.*teacher\.train"):
        create_task(method, cnn_pair.student, cnn_pair, label_smoothing=0, seed=0, device=CPU)


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
    ("student", "teacher", "asked", "kind"),
    [
        ("test_efficientnet", "test_resnet", "auto", "map"),  # two CNNs whose heads pool by the mean
        ("test_efficientnet", "test_resnet", "vector", "vector"),
        ("test_efficientnet", "test_vit", "auto", "vector"),
        ("test_vit", "test_resnet", "auto", "vector"),
    ],
)
def test_the_taps_of_a_pair(student: str, teacher: str, asked: str, kind: str) -> None:
    pair = make_pair(student, teacher, size=160)
    taps = find_taps(DskdMethod(tap=asked), pair)  # type: ignore[arg-type]
    assert taps.student.kind == taps.teacher.kind == kind
    for tap, model in ((taps.student, pair.student), (taps.teacher, pair.teacher)):
        model.eval()
        with torch.no_grad():
            features = model.forward_features(torch.randn(2, 3, 160, 160))  # type: ignore[operator]
            feat, _ = tap.read(model, features)
        assert feat.shape[1] == tap.channels
        assert (tuple(feat.shape[2:]) or None) == tap.grid


def test_a_tap_that_a_model_lacks() -> None:
    pair = make_pair("test_efficientnet", "test_resnet")
    pair.student.forward_features = lambda x: x.mean(dim=(2, 3))  # type: ignore[assignment, method-assign]
    with pytest.raises(TapError):
        find_taps(DskdMethod(tap="map"), pair)
