"""Photos that were stored on their side, through every source and every loader."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from photo_support import photo_paths, read_photo, store_turned
from run_support import small_recipe

from dskd_compress.config import AugmentSection, DataSection
from dskd_compress.data import (
    DataSets,
    Preprocessing,
    TrainLoader,
    ValLoader,
    find_ignored_orientation,
    iter_images,
    open_data,
)
from dskd_compress.data.streams import open_streams
from dskd_compress.run_folder.stages import STAGES
from dskd_compress.weights import WeightsInfo
from dskd_export.errors import DataError

PHOTOS = [read_photo(path, pixels=48) for path in photo_paths()]
CLASSES = ("flower", "temple")
PRE = Preprocessing((3, 24, 24), (0.5,) * 3, (0.25,) * 3, "bicubic", 0.9, "center")


def write_photos(folder: Path, *, turned: bool) -> Path:
    """Eight files of each class and split; each held in another way where `turned`, the same pixels otherwise."""
    for split in ("train", "val"):
        for name, photo in zip(CLASSES, PHOTOS, strict=True):
            (folder / split / name).mkdir(parents=True)
            for orientation in range(1, 9):
                content = store_turned(photo, orientation if turned else 1)
                (folder / split / name / f"{orientation}.png").write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def upright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("upright"), turned=False)


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("turned"), turned=True)


def pack_shards(folder: Path, to: Path) -> Path:
    pytest.importorskip("webdataset")
    for split in ("train", "val"):
        with tarfile.open(to / f"{split}.tar", "w") as tar:
            for number, path in enumerate(sorted((folder / split).rglob("*.png"))):
                label = str(CLASSES.index(path.parent.name)).encode()
                for suffix, content in (("png", path.read_bytes()), ("cls", label)):
                    member = tarfile.TarInfo(f"{number:05d}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    (to / "classnames.txt").write_text("\n".join(CLASSES))
    return to


def section_of(kind: str, folder: Path, to: Path) -> DataSection:
    keys: dict[str, object] = {"workers": 0, "augment": AugmentSection(color_jitter=0.2)}
    if kind == "folder":
        return DataSection(source=str(folder), **keys)
    if kind == "split":
        return DataSection(source=str(folder / "train"), **keys)
    if kind == "tar":
        with tarfile.open(to / "photos.tar", "w") as tar:
            tar.add(folder, "photos")
        return DataSection(source=str(to / "photos.tar"), **keys)
    shards = pack_shards(folder, to)
    return DataSection(source=f"wds/{shards}", train_split="train.tar|16", val_split="val.tar|16", **keys)


def batches(sets: DataSets, section: DataSection) -> list[torch.Tensor]:
    train = TrainLoader(sets, section, PRE, batch_size=4, seed=0, device="cpu")
    val = ValLoader(sets, PRE, batch_size=4, device="cpu", workers=0, resident=section.loader == "resident")
    return [images_BCHW.clone() for loader in (train.epoch(0), val) for images_BCHW, _ in loader]


@pytest.mark.parametrize("kind", ["folder", "split", "tar", "wds"])
def test_applied_they_are_the_upright_photos_bit_for_bit(
    kind: str, upright: Path, turned: Path, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    plain, section = section_of(kind, upright, tmp_path / "a"), section_of(kind, turned, tmp_path / "b")
    wanted, ignoring = open_data(plain, 0), open_data(section, 0)
    section = section.model_copy(update={"exif": "apply"})
    sets = open_data(section, 0)
    for images, same, other in zip(
        iter_images(sets.val), iter_images(wanted.val), iter_images(ignoring.val), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(images[0]), np.asarray(same[0]))
        assert images[1:] == other[1:]
    assert {image.size for image, _, _ in iter_images(ignoring.val)} > {PHOTOS[0].size}
    assert all(map(torch.equal, batches(sets, section), batches(wanted, plain)))
    assert not all(map(torch.equal, batches(ignoring, plain), batches(wanted, plain)))
    # Other pixels: what was computed from those as stored is not used again.
    assert sets.facts().sha256 != ignoring.facts().sha256


def test_resident_images_are_turned(upright: Path, turned: Path) -> None:
    plain = DataSection(source=str(upright), loader="resident", workers=0)
    section = DataSection(source=str(turned), loader="resident", workers=0, exif="apply")
    pairs = zip(batches(open_data(section, 0), section), batches(open_data(plain, 0), plain), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def test_a_hugging_face_data_set_is_turned_by_both_readers(
    upright: Path, turned: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("parquet")
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    # After each pass over parquet files it waits 5 s for its reader threads.
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.1, raising=False)
    datasets.disable_progress_bars()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    for split, name in (("train", "train"), ("val", "validation")):
        paths = sorted((turned / split).rglob("*.png"))
        rows = {
            "image": [{"bytes": path.read_bytes(), "path": None} for path in paths],
            "label": [CLASSES.index(path.parent.name) for path in paths],
        }
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{name}-00000-of-00001.parquet")
    wanted = [np.asarray(image) for image, _, _ in iter_images(open_data(DataSection(source=str(upright)), 0).val)]
    source = f"hfds/{folder}"
    ignoring = open_data(DataSection(source=source), 0)
    sentence = find_ignored_orientation(ignoring)
    assert sentence is not None
    assert "28 of 32" in sentence
    stream = {"source": f"hfids/{folder}", "train_split": "train|16", "val_split": "validation|16"}
    for section in (DataSection(source=source, exif="apply"), DataSection(exif="apply", **stream)):
        sets = open_data(section, 0)
        assert all(
            np.array_equal(np.asarray(image), other)
            for (image, _, _), other in zip(iter_images(sets.val), wanted, strict=True)
        )
        assert find_ignored_orientation(sets) is None
    # That reader turns every image; the device will not.
    assert "--set data.exif=apply" in str(find_ignored_orientation(open_data(DataSection(**stream), 0)))


def test_a_reader_that_drops_exif_is_refused() -> None:
    with pytest.raises(DataError, match="EXIF") as caught:
        open_streams("tfds/mnist", "train", None, "apply")
    assert caught.value.hint == "--set data.exif=ignore"


def count_turned(folder: Path, turned: int, images: int) -> DataSets:
    for number in range(images):
        path = folder / CLASSES[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store_turned(PHOTOS[0], 6 if number < turned else 1, "JPEG"))
    return open_data(DataSection(source=str(folder)), 0)


def test_the_warning_names_the_share_and_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = count_turned(tmp_path / "two", 2, 100)
    sentence = find_ignored_orientation(sets)
    assert sentence is not None
    assert "2 of 100 sampled images (2 %)" in sentence
    assert sentence.endswith("--set data.exif=apply")
    assert find_ignored_orientation(count_turned(tmp_path / "one", 1, 100)) is None
    applied = open_data(DataSection(source=str(tmp_path / "two"), exif="apply"), 0)
    assert find_ignored_orientation(applied) is None
    monkeypatch.setattr("dskd_compress.data.orientation.SAMPLE", 10)
    drawn = {find_ignored_orientation(count_turned(tmp_path / "half", 50, 100), seed) for seed in (1, 1, 2)}
    assert len(drawn) == 2  # a sample, the same for the same seed
    assert all("of 10 sampled" in str(one) for one in drawn)


def test_a_file_that_cannot_be_read_is_left_to_the_loaders(tmp_path: Path) -> None:
    sets = count_turned(tmp_path, 1, 20)
    (tmp_path / CLASSES[0] / "0.jpg").unlink()
    assert find_ignored_orientation(sets) is None


def test_arrays_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sets = open_data(DataSection(), 0)
    monkeypatch.setattr("dskd_compress.data.orientation.draw_epoch_order", None)
    assert find_ignored_orientation(sets) is None


def test_digests_change_only_where_exif_is_applied() -> None:
    ignoring, applying = small_recipe(), small_recipe("data.exif=apply")
    for stage in STAGES:
        settings = stage.settings(ignoring)
        assert "exif" not in settings.get("data", {}), stage.name
        changed = settings != stage.settings(applying)
        assert changed is (stage.name in ("train", "distill", "tune")), stage.name


def test_weights_name_it_only_where_it_is_applied() -> None:
    recipe = small_recipe()
    plain = WeightsInfo.of(recipe.student, ("a", "b"), PRE)
    assert "exif" not in plain.model_dump_json()
    applied = WeightsInfo.of(recipe.student, ("a", "b"), PRE, "apply")
    assert WeightsInfo.model_validate_json(applied.model_dump_json()) == applied
    assert WeightsInfo.model_validate_json(plain.model_dump_json()).exif == "ignore"
