from __future__ import annotations

import hashlib
import json
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis_support import examples
from run_support import small_recipe
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support import CLASSES, make_format, make_model

from dskd_compress.config import StudentSection
from dskd_compress.data import open_data
from dskd_compress.timm_import import import_timm
from dskd_compress.weights import METADATA_KEY, WeightsInfo, check_classes, load_trained, read_info, save_weights
from dskd_export.errors import CheckpointError, DataError, ModelError

NAMES = tuple(f"class {index}" for index in range(CLASSES))


def info_of(name: str, size: int = 32, **kwargs: object) -> WeightsInfo:
    section = StudentSection(name=name, kwargs=dict(kwargs))
    return WeightsInfo.of(section, NAMES, make_format(size))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "student.safetensors"
    save_weights(path, make_model("test_resnet").state_dict(), info_of("test_resnet"))
    return path


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("test_resnet", {}),
        ("test_efficientnet", {"drop_rate": 0.2}),
        ("test_vit", {"img_size": 32}),  # built for 32 px, which loading has to repeat
        ("test_convnext", {}),
    ],
)
def test_a_model_comes_back_bit_for_bit(name: str, kwargs: dict[str, object], tmp_path: Path) -> None:
    model = make_model(name, **kwargs).eval()
    path = tmp_path / "weights.safetensors"
    info = info_of(name, drop_rate=0.2) if "drop_rate" in kwargs else info_of(name)
    save_weights(path, model.state_dict(), info)
    loaded, found = load_trained(path)
    assert found == info
    assert not loaded.training
    before, after = model.state_dict(), loaded.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)
    images_BCHW = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(images_BCHW), model(images_BCHW))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_the_keys_are_those_of_timm(name: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(path, make_model(name).state_dict(), info_of(name))
    plain = import_timm().create_model(name, num_classes=CLASSES)
    tensors = load_file(path)
    assert set(tensors) == set(plain.state_dict())
    plain.load_state_dict(tensors, strict=True)


def test_tensors_that_share_memory_or_are_views_are_saved_whole(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4)
    state = {"a": base, "b": base, "t": base.t(), "row": base[1], "scalar": torch.tensor(3), "empty": base[:0]}
    path = tmp_path / "weights.safetensors"
    save_weights(path, state, info_of("test_resnet"))
    loaded = load_file(path)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_parameters_are_saved_without_their_gradient(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(path, dict(make_model("test_resnet").named_parameters()), info_of("test_resnet"))
    assert all(not tensor.requires_grad for tensor in load_file(path).values())


def test_the_same_weights_are_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    save_weights(again, make_model("test_resnet").state_dict(), info_of("test_resnet"))
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(saved.read_bytes()).digest()


def test_an_old_file_is_replaced(saved: Path) -> None:
    save_weights(saved, make_model("test_vit").state_dict(), info_of("test_vit"))
    assert read_info(saved).name == "test_vit"
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


# Integers of more digits than JSON readers agree on are refused.
_values = st.integers(-(2**53), 2**53) | st.text(max_size=5) | st.booleans()


@settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    classes=st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4, unique=True),
    kwargs=st.dictionaries(st.text(max_size=5), _values, max_size=2),
    mean=st.floats(0, 1),
    crop_pct=st.floats(0.1, 1),
)
def test_the_metadata_comes_back(
    classes: list[str], kwargs: dict[str, object], mean: float, crop_pct: float, tmp_path: Path
) -> None:
    info = WeightsInfo(
        name="test_resnet",
        kwargs=kwargs,
        classes=tuple(classes),
        input_size=(3, 48, 64),
        mean=(mean, 0.5, 0.25),
        std=(0.1, 0.2, 0.3),
        interpolation="bilinear",
        crop_pct=crop_pct,
        crop_mode="squash",
    )
    path = tmp_path / "weights.safetensors"
    save_weights(path, {"x": torch.zeros(1)}, info)
    assert read_info(path) == info
    preprocessing = read_info(path).preprocessing
    assert (preprocessing.mean, preprocessing.crop_pct) == (info.mean, crop_pct)
    with safe_open(str(path), framework="pt") as file:
        assert set(json.loads(file.metadata()[METADATA_KEY])) == set(WeightsInfo.model_fields) - {"exif"}


def test_info_of_a_model_that_is_about_to_be_trained() -> None:
    info = info_of("test_vit", size=48, img_size=48)
    assert (info.name, info.kwargs, info.classes) == ("test_vit", {"img_size": 48}, NAMES)
    assert info.preprocessing == make_format(48)


# --- what is refused


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_foreign_file(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file(make_model("test_resnet").state_dict(), path, metadata=metadata)
    for read in (read_info, load_trained):
        with pytest.raises(CheckpointError, match=r"foreign\.safetensors"):
            read(path)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_a_truncated_file(keep: int, saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:keep])
    for read in (read_info, load_trained):
        with pytest.raises(CheckpointError, match=r"student\.safetensors"):
            read(saved)


@pytest.mark.parametrize(
    "text", ["", "{}", "not json", '{"name": 3}', '{"name": "test_resnet", "evil": 1}', "[1]", "null"]
)
def test_damaged_metadata(text: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"x": torch.zeros(1)}, path, metadata={METADATA_KEY: text})
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        read_info(path)


def test_a_header_that_promises_too_much(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        read_info(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.safetensors"):
        read_info(tmp_path / "none.safetensors")


def test_weights_that_do_not_fit_their_own_description(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(path, make_model("test_resnet").state_dict(), info_of("test_vit"))
    with pytest.raises(CheckpointError, match=r"test_vit.*missing.*unexpected"):
        load_trained(path)


def test_an_architecture_that_this_timm_lacks(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(path, make_model("test_resnet").state_dict(), info_of("test_resnext"))
    with pytest.raises(ModelError, match="test_resnext"):
        load_trained(path)


# --- and what is left alone


def test_loading_draws_from_no_global_generator(saved: Path) -> None:
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    expected = (torch.rand(3), random.random(), np.random.rand())
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    load_trained(saved)
    found = (torch.rand(3), random.random(), np.random.rand())
    assert torch.equal(found[0], expected[0])
    assert found[1:] == expected[1:]


def test_classes_that_differ(tmp_path: Path) -> None:
    sets = open_data(small_recipe().data, 0)
    check_classes(tuple("0123456789"), sets, tmp_path / "w", "train")
    for classes in (tuple("9876543210"), tuple("012345678"), ()):
        with pytest.raises(DataError, match=r"(?s)w .*digits.*dskd-compress train"):
            check_classes(classes, sets, tmp_path / "w", "train")
    (tmp_path / "recipe.yaml").write_text("of a run")  # which the line to paste then names
    with pytest.raises(DataError) as caught:
        check_classes((), sets, tmp_path / "w", "distill")
    assert str(caught.value.hint).endswith(f"dskd-compress distill {tmp_path} --data digits")
