"""A cached teacher against the teacher itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support import CLASSES, make_format, make_model
from torch import Tensor

from dskd_compress.config import DskdMethod, KdMethod, Method, TeacherCacheSection
from dskd_compress.methods import Pair, create_task
from dskd_compress.methods.base import StepContext, Teacher, TeacherOutput
from dskd_compress.models import state_sha256
from dskd_compress.teachers.cache.disk import open_outputs
from dskd_compress.teachers.cache.key import ImageFacts, describe_outputs, list_output_tensors
from dskd_compress.teachers.cache.teacher import CachedTeacher, Keys
from dskd_export.errors import DataError, ModelError

CPU = torch.device("cpu")
IMAGES, VIEWS, BATCH = 12, 2, 4
# teacher, image size, method: each kind and layout of tap
CASES = {
    "logits": ("test_resnet", 64, KdMethod()),
    "vector": ("test_resnet", 64, DskdMethod(tap="vector")),
    "map NCHW": ("test_resnet", 64, DskdMethod(tap="map")),
    "map NHWC": ("swin_tiny_patch4_window7_224", 64, DskdMethod(tap="map")),
    "map of tokens with a prefix": ("test_vit2", 64, DskdMethod(tap="map")),
}


def pair_of(teacher: str, size: int) -> Pair:
    arguments: dict[str, object] = {} if teacher == "test_resnet" else {"img_size": size}
    if teacher.startswith("swin"):
        arguments |= {"window_size": 2, "depths": (1, 1, 1, 1), "embed_dim": 16, "num_heads": (1, 1, 2, 2)}
    if "vit" in teacher:
        arguments |= {"global_pool": "avg"}
    model = make_model(teacher, seed=1, **arguments)
    return Pair(make_model("test_efficientnet"), make_format(size), model, make_format(size, mean=0.4))


def teacher_of(method: Method, pair: Pair) -> Teacher:
    task = create_task(method, pair.student, pair, label_smoothing=0.0, seed=0, device=CPU)
    assert task.teacher is not None
    return task.teacher


def image(view: int, index: int, size: int) -> Tensor:
    return torch.randn(3, size, size, generator=torch.Generator().manual_seed(100 * view + index))


def keys(epoch: int, batch: int) -> np.ndarray:
    """Each epoch has another order; the epochs alternate between the views."""
    order = np.random.default_rng(epoch).permutation(IMAGES)[batch * BATCH : (batch + 1) * BATCH]
    return np.stack([np.full(BATCH, epoch % VIEWS), order], axis=1).astype(np.int64)


def batch_at(epoch: int, batch: int, size: int) -> Tensor:
    return torch.stack([image(int(view), int(index), size) for view, index in keys(epoch, batch)])


def cached(
    teacher: Teacher, place: Path, size: int, features: str = "float32", keys: Keys = keys
) -> CachedTeacher:
    images = ImageFacts("data", "augmentation", {"input_size": (3, size, size)}, IMAGES, VIEWS)
    section = TeacherCacheSection.model_validate({"features": features})
    outputs = describe_outputs(
        teacher,
        teacher_sha256=state_sha256(teacher.model),
        images=images,
        section=section,
        precision="fp32",
        device=CPU,
    )
    stores = open_outputs(place, outputs, images)
    return CachedTeacher(teacher, stores, keys, images=IMAGES)


def forwards_of(teacher: Teacher) -> list[int]:
    """Batch sizes that the model is asked about from now on."""
    seen: list[int] = []
    method = "forward" if teacher.tap is None else "forward_features"
    real: Callable[[Tensor], Tensor] = getattr(teacher.model, method)

    def counted(images_BCHW: Tensor) -> Tensor:
        seen.append(len(images_BCHW))
        return real(images_BCHW)

    setattr(teacher.model, method, counted)
    return seen


def same(found: TeacherOutput, expected: TeacherOutput) -> bool:
    """The same numbers, bit for bit, in the same order in memory."""
    ours, theirs = list_output_tensors(found), list_output_tensors(expected)
    assert ours.keys() == theirs.keys()
    return all(
        torch.equal(ours[name], theirs[name])
        and np.argsort(ours[name].squeeze().stride()).tolist()
        == np.argsort(theirs[name].squeeze().stride()).tolist()
        for name in ours
    )


@pytest.mark.parametrize("case", CASES)
def test_what_is_read_is_what_the_teacher_says(case: str, tmp_path: Path) -> None:
    name, size, method = CASES[case]
    teacher = teacher_of(method, pair_of(name, size))
    if teacher.tap is not None:
        expected_layout = {"map NCHW": "NCHW", "map NHWC": "NHWC", "vector": "vector"}.get(case, "tokens")
        assert teacher.tap.layout == expected_layout
        assert (teacher.tap.prefix_tokens > 0) == ("prefix" in case)
    first = cached(teacher, tmp_path, size)
    for batch in range(IMAGES // BATCH):
        images_BCHW = batch_at(0, batch, size)
        assert same(first.at(images_BCHW, (0, batch)), teacher(images_BCHW))
    assert (first.read, first.computed, first.error) == (0, IMAGES, None)

    # Another run: the same batches again, of which only the first is computed, to be compared.
    second = cached(teacher, tmp_path, size)
    expected = [teacher(batch_at(0, batch, size)) for batch in range(IMAGES // BATCH)]
    seen = forwards_of(teacher)
    for batch in range(IMAGES // BATCH):
        output = second.at(batch_at(0, batch, size), (0, batch))
        assert same(output, expected[batch])
        assert not any(value.requires_grad for value in list_output_tensors(output).values())
    assert seen == [BATCH]
    assert (second.read, second.computed, second.error) == (IMAGES, 0, 0.0)

    # An epoch in another order that has the view again; and one that has another view.
    for batch in range(IMAGES // BATCH):
        images_BCHW = batch_at(2, batch, size)
        found, computed = (
            list_output_tensors(second.at(images_BCHW, (2, batch))),
            list_output_tensors(teacher(images_BCHW)),
        )
        for key in found:
            torch.testing.assert_close(found[key], computed[key], rtol=1e-4, atol=1e-5)
    assert (second.read, second.computed) == (2 * IMAGES, 0)
    second.at(batch_at(1, 0, size), (1, 0))
    assert second.computed == BATCH


@pytest.mark.parametrize("case", ["vector", "map NCHW", "map of tokens with a prefix"])
def test_float16_rounds_the_features_alone_and_by_no_more_than_it_says(case: str, tmp_path: Path) -> None:
    name, size, method = CASES[case]
    teacher = teacher_of(method, pair_of(name, size))
    ours = cached(teacher, tmp_path, size, "float16")
    images_BCHW = batch_at(0, 0, size)
    computed = ours.at(images_BCHW, (0, 0))
    read = ours.at(images_BCHW, (0, 0))
    assert same(read, computed)  # a run does not show whether it filled the cache
    exact = teacher(images_BCHW)
    assert torch.equal(read.logits_BK, exact.logits_BK)
    assert read.feat is not None
    assert exact.feat is not None
    assert read.feat.dtype == torch.float32
    assert not torch.equal(read.feat, exact.feat)
    # 2^-11 of the value, and of the smallest normal number below that.
    assert ((read.feat - exact.feat).abs() <= exact.feat.abs().clamp(min=2.0**-14) * 2.0**-11).all()
    assert ours.error is not None
    assert 0 < ours.error <= 2.0**-11
    vector = ours.stores["feat"]
    assert vector.dtype == np.float16
    assert ours.stores["logits_BK"].dtype == np.float32


def test_methods_have_the_logits_in_common(tmp_path: Path) -> None:
    pair = pair_of("test_resnet", 64)
    dskd = cached(teacher_of(DskdMethod(tap="vector"), pair), tmp_path, 64)
    for batch in range(IMAGES // BATCH):
        dskd.at(batch_at(0, batch, 64), (0, batch))
    kd = cached(teacher_of(KdMethod(), pair), tmp_path, 64)
    kd.at(batch_at(0, 1, 64), (0, 1))
    assert (kd.read, kd.computed) == (BATCH, 0)
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2


def test_a_batch_with_one_missing_image_is_computed_whole(tmp_path: Path) -> None:
    teacher = teacher_of(KdMethod(), pair_of("test_resnet", 64))
    numbers = {0: [0, 1, 2, 3], 1: [3, 2, 1, 4], 2: [4, 0, 1, 2]}
    ours = cached(
        teacher, tmp_path, 64, keys=lambda epoch, batch: np.array([[0, index] for index in numbers[batch]])
    )
    seen = forwards_of(teacher)
    for batch, indices in numbers.items():
        ours.at(torch.stack([image(0, index, 64) for index in indices]), (0, batch))
    assert seen == [4, 4, 4]  # the last one is the comparison
    assert (ours.read, ours.computed) == (4, 8)


def test_pieces_of_a_batch(tmp_path: Path) -> None:
    """A process of several, or a step in pieces, has some places of a batch only."""
    teacher = teacher_of(DskdMethod(tap="vector"), pair_of("test_resnet", 64))
    images_BCHW = batch_at(0, 0, 64)
    ours = cached(teacher, tmp_path, 64)
    for rows in ([0, 3], [1, 2]):
        assert same(ours.at(images_BCHW[rows], (0, 0), rows), teacher(images_BCHW[rows]))
    assert (ours.read, ours.computed) == (0, 4)
    whole = ours.at(images_BCHW, (0, 0))
    assert (ours.read, ours.computed) == (4, 4)
    torch.testing.assert_close(whole.feat, teacher(images_BCHW).feat)
    with pytest.raises(AssertionError, match=r"4 .*2 "):
        ours.at(images_BCHW[:2], (0, 0))


def test_a_batch_outside_of_the_training_is_computed_and_not_kept(tmp_path: Path) -> None:
    method = DskdMethod(tap="vector")
    pair = pair_of("test_resnet", 64)
    task = create_task(method, pair.student, pair, label_smoothing=0.0, seed=0, device=CPU)
    plain = create_task(method, pair.student, pair, label_smoothing=0.0, seed=0, device=CPU)
    assert task.teacher is not None
    task.teacher = ours = cached(task.teacher, tmp_path, 64)
    batches = [batch_at(0, batch, 64) for batch in range(2)]
    for one in (task, plain):
        one.fit_statistics(batches)
    assert (ours.read, ours.computed) == (0, 0)
    assert all(store.count_filled() == 0 for store in ours.stores.values())
    assert torch.equal(task.module.space.mean_C, plain.module.space.mean_C)
    assert task.taps == plain.taps


def test_the_task_asks_by_its_position(tmp_path: Path) -> None:
    pair = pair_of("test_resnet", 64)
    losses = []
    for kept in (False, True):
        task = create_task(
            DskdMethod(tap="map"), make_model("test_efficientnet"), pair, label_smoothing=0.0, seed=0, device=CPU
        )
        assert task.teacher is not None
        if kept:
            task.teacher = cached(task.teacher, tmp_path, 64)
        task.train()
        for epoch in (0, 2, 4):
            torch.manual_seed(epoch)
            context = StepContext(position=(epoch, 0))
            result = task(batch_at(epoch, 0, 64), torch.arange(BATCH) % CLASSES, context)
            losses.append(float(result["loss"].detach()))
    assert losses[:3] == losses[3:]
    assert isinstance(task.teacher, CachedTeacher)
    assert task.teacher.computed > 0


@pytest.mark.parametrize("wrong", ["weights", "images"])
def test_a_cache_of_something_else_ends_the_run(wrong: str, tmp_path: Path) -> None:
    """What no key covers: a changed folder, or a changed file of a data set that is listed by name and size."""
    teacher = teacher_of(DskdMethod(tap="vector"), pair_of("test_resnet", 64))
    images_BCHW = batch_at(0, 0, 64)
    cached(teacher, tmp_path, 64).at(images_BCHW, (0, 0))
    ours = cached(teacher, tmp_path, 64)
    if wrong == "weights":
        with torch.no_grad():
            for parameter in teacher.model.parameters():
                parameter.mul_(1.1)
    else:
        images_BCHW = images_BCHW.flip(3)
    with pytest.raises(DataError, match=str(tmp_path)):
        ours.at(images_BCHW, (0, 0))


def test_a_feature_beyond_float16_is_refused(tmp_path: Path) -> None:
    teacher = teacher_of(DskdMethod(tap="map"), pair_of("test_resnet", 64))
    with torch.no_grad():
        for module in teacher.model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.mul_(100)
    with pytest.raises(ModelError, match=r"feat .*float16.*teacher\.cache\.features"):
        cached(teacher, tmp_path, 64, "float16").at(batch_at(0, 0, 64), (0, 0))
    cached(teacher, tmp_path, 64, "float32").at(batch_at(0, 0, 64), (0, 0))


def test_a_key_outside_of_the_cache_is_our_mistake(tmp_path: Path) -> None:
    teacher = teacher_of(KdMethod(), pair_of("test_resnet", 64))
    for view, index in ((VIEWS, 0), (0, IMAGES), (-1, 0)):
        ours = cached(teacher, tmp_path, 64, keys=lambda *_, k=(view, index): np.array([k] * BATCH))
        with pytest.raises(AssertionError, match="outside"):
            ours.at(batch_at(0, 0, 64), (0, 0))
