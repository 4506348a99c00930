from __future__ import annotations

import io
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis_support import examples
from PIL import Image
from sklearn.datasets import load_digits

from dskd_compress.config import DataSection
from dskd_compress.data import ArraySet, DataSets, check_data, open_data
from dskd_compress.data.folders import natural_key
from dskd_compress.data.sources import fingerprint
from dskd_compress.data.splits import split_set
from dskd_export.errors import DataError, EnvironmentProblem

TWO_SPLITS = {"train/cat": 4, "train/dog": 3, "val/cat": 2, "val/dog": 2}


def names(images) -> list[str]:
    return [images.name(i) for i in range(len(images))]


def opened(source, **keys) -> DataSets:
    return open_data(DataSection(source=str(source), **keys), seed=0)


def test_digits_are_sklearns_at_32_px_split_per_class() -> None:
    sets = opened("digits")
    assert len(sets.train) + len(sets.val) == 1797
    assert sets.classes == tuple("0123456789")
    bunch = load_digits()
    labels = np.array([sets.val.label(i) for i in range(len(sets.val))])
    expected = np.floor(np.bincount(bunch.target) * 0.2 + 0.5).astype(int)
    assert np.bincount(labels).tolist() == expected.tolist()
    for i in (0, 100, 300):
        number = int(sets.val.name(i).removeprefix("digit-"))
        assert sets.val.label(i) == bunch.target[number]
        small = Image.fromarray(np.rint(bunch.images[number] / 16 * 255).astype(np.uint8))
        enlarged = np.asarray(small.resize((32, 32), Image.Resampling.BICUBIC))
        image = sets.val.image(i)
        assert image.mode == "RGB"
        assert (np.asarray(image) == enlarged[..., None]).all()


def test_folder_with_train_and_val(write_folder) -> None:
    root = write_folder(TWO_SPLITS)
    sets = opened(root)
    assert sets.classes == ("cat", "dog")
    assert names(sets.train)[:5] == [*(f"train/cat/{n}.png" for n in range(4)), "train/dog/0.png"]
    assert [sets.val.label(i) for i in range(4)] == [0, 0, 1, 1]
    assert np.array_equal(sets.val.image(1), Image.open(root / "val/cat/1.png"))
    check_data(sets)


@pytest.mark.parametrize("name", ["validation", "test"])
def test_other_names_of_the_validation_folder(write_folder, name: str) -> None:
    sets = opened(write_folder({"train/a": 2, "train/b": 2, f"{name}/a": 1, f"{name}/b": 1}))
    assert names(sets.val) == [f"{name}/a/0.png", f"{name}/b/0.png"]


def test_named_splits(write_folder) -> None:
    root = write_folder({"fit/a": 2, "fit/b": 2, "check/a": 1, "check/b": 1, "val/a": 1})
    sets = opened(root, train_split="fit", val_split="check")
    assert (len(sets.train), names(sets.val)) == (4, ["check/a/0.png", "check/b/0.png"])


def test_one_folder_of_classes_is_split_per_class(write_folder) -> None:
    sets = opened(write_folder({"a": 10, "b": 5, "c": 2}), val_fraction=0.2)
    assert [sets.val.label(i) for i in range(len(sets.val))] == [0, 0, 1, 2]
    assert not set(names(sets.train)) & set(names(sets.val))
    assert len(sets.train) + len(sets.val) == 17


def test_train_folder_alone_is_split(write_folder) -> None:
    sets = opened(write_folder({"train/a": 5, "train/b": 5}))
    assert (len(sets.train), len(sets.val)) == (8, 2)


def test_deeper_folders_links_and_what_tools_leave_behind(write_folder) -> None:
    root = write_folder({"n1/images": 2, "n10": 2, "N2": 2, ".cache": 1, "__MACOSX": 1})
    (root / "n10" / "._0.png").write_bytes(b"resource fork")
    (root / "n10" / "notes.txt").write_text("no image")
    (root / "n10" / "loop").symlink_to(root / "n10", target_is_directory=True)
    sets = opened(root, val_fraction=0.5)
    assert sets.classes == ("n1", "N2", "n10")
    together = sorted(names(sets.train) + names(sets.val))
    assert together == ["N2/0.png", "N2/1.png", "n1/images/0.png", "n1/images/1.png", "n10/0.png", "n10/1.png"]


def test_class_order_is_timms(write_folder) -> None:
    from dskd_compress.timm_import import import_timm

    import_timm()
    from timm.data.readers.reader_image_folder import find_images_and_targets

    root = write_folder(dict.fromkeys(["class10", "class9", "B", "a", "x2y10", "x2y9", "007", "7up"], 2))
    _, class_to_idx = find_images_and_targets(str(root))
    assert opened(root, val_fraction=0.5).classes == tuple(class_to_idx)


@given(st.lists(st.text(min_size=1), unique=True))
@settings(max_examples=examples(50), deadline=None)
def test_natural_order_is_total(texts: list[str]) -> None:
    backwards = texts[::-1]
    assert sorted(backwards, key=natural_key) == sorted(texts, key=natural_key)


def test_split_depends_on_names_alone() -> None:
    def make(classes: str, count: int) -> ArraySet:
        labels = np.repeat(np.arange(len(classes)), count)
        listed = [f"{classes[label]}/{n}" for n, label in enumerate(labels)]
        return ArraySet(np.zeros((len(labels), 2, 2), np.uint8), labels, list(classes), listed)

    one = names(split_set(make("ab", 50), 0.2, 0)[1])
    assert one == names(split_set(make("ab", 50), 0.2, 0)[1])
    assert one != names(split_set(make("ab", 50), 0.2, 1)[1])
    assert one == [name for name in names(split_set(make("abc", 50), 0.2, 0)[1]) if not name.startswith("c")]
    # Frozen: a change would silently move images between training and validation of running work.
    assert one[:4] == FROZEN


FROZEN = ["a/3", "a/16", "a/23", "a/28"]


def test_training_seed_does_not_move_the_split() -> None:
    section = DataSection(source="digits")
    assert names(open_data(section, 0).val) == names(open_data(section, 1).val)


@pytest.mark.parametrize("wrap", ["", "pack/"])
@pytest.mark.parametrize("split", [True, False])
def test_tar_equals_its_folder(write_folder, tmp_path: Path, wrap: str, split: bool) -> None:
    root = write_folder(TWO_SPLITS if split else {"cat": 4, "dog": 4})
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        tar.add(root, arcname=wrap or ".")
        note = tarfile.TarInfo(f"{wrap}words.txt")
        tar.addfile(note, io.BytesIO())
    packed, plain = opened(tmp_path / "images.tar"), opened(root)
    for one, other in ((packed.train, plain.train), (packed.val, plain.val)):
        assert names(one) == names(other)
        assert one.classes == other.classes
        for i in range(len(one)):
            assert one.label(i) == other.label(i)
            assert np.array_equal(one.image(i), other.image(i))
    assert packed.facts().sha256 == plain.facts().sha256


def test_npz_file_and_folder(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (12, 8, 9, 3), np.uint8)
    y = np.arange(12) % 3
    np.savez(tmp_path / "one.npz", x=x, y=y, classes=np.array(["r", "g", "b"]))
    sets = opened(tmp_path / "one.npz", val_fraction=0.25)
    assert sets.classes == ("r", "g", "b")
    assert (len(sets.train), len(sets.val)) == (9, 3)
    first = int(sets.train.name(0))
    assert np.array_equal(sets.train.image(0), x[first])

    np.savez(tmp_path / "two.npz", x_train=x[..., :1], y_train=y[:, None], x_test=x[:3, :, :, 0], y_test=y[:3])
    sets = opened(tmp_path / "two.npz")
    assert names(sets.val) == ["test/0", "test/1", "test/2"]
    assert sets.classes == ("0", "1", "2")
    assert np.array_equal(np.asarray(sets.train.image(5))[..., 2], x[5, ..., 0])
    check_data(sets)

    folder = tmp_path / "folder"
    folder.mkdir()
    np.savez(folder / "train.npz", x=x, y=y, classes=np.array(["r", "g", "b"]))
    np.savez(folder / "val.npz", x=x[:6], y=y[:6])
    sets = opened(folder)
    assert (len(sets.train), len(sets.val), sets.val.classes) == (12, 6, ("r", "g", "b"))


def test_facts_know_contents_but_not_the_place(write_folder, tmp_path: Path) -> None:
    root = write_folder(TWO_SPLITS)
    facts = opened(root).facts(skipped=["b", "a", "b"])
    assert (facts.train_images, facts.val_images, facts.classes) == (7, 4, ["cat", "dog"])
    assert (facts.sha256_of, facts.skipped) == ("content", ["a", "b"])
    shutil.copytree(root, tmp_path / "elsewhere" / "copy")
    assert opened(tmp_path / "elsewhere" / "copy").facts().sha256 == facts.sha256

    image = root / "val/dog/1.png"
    changed = bytearray(image.read_bytes())
    changed[-20] ^= 1
    image.write_bytes(changed)
    assert opened(root).facts().sha256 != facts.sha256
    # The same size: a listing cannot see it, and says that it is one.
    sets, copied = opened(root), opened(tmp_path / "elsewhere" / "copy")
    listings = [fingerprint({"train": s.train, "val": s.val}, limit_bytes=100) for s in (sets, copied)]
    assert listings[0] == listings[1]
    assert listings[0][1] == "listing"
    (root / "val/dog/1.png").rename(root / "val/dog/9.png")
    assert fingerprint({"train": opened(root).train, "val": opened(root).val}, 100) != listings[0]


def test_facts_know_the_split() -> None:
    assert opened("digits").facts().sha256 != opened("digits", split_seed=1).facts().sha256
    assert opened("digits").facts() == opened("digits").facts()


def refused(action, *parts: str) -> None:
    with pytest.raises(DataError) as caught:
        action()
    text = str(caught.value)
    for part in parts:
        assert part in text, text
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_some_images_of_every_class() -> None:
    whole = open_data(DataSection(), 0)
    few, more = (open_data(DataSection(train_per_class=count), 0) for count in (3, 9))
    names = [{sets.train.name(i) for i in range(len(sets.train))} for sets in (few, more, whole)]
    assert names[0] < names[1] < names[2]
    assert [few.train.label(i) for i in range(30)].count(4) == 3
    assert len(few.train) == 30
    assert len(few.val) == len(whole.val)
    other = open_data(DataSection(train_per_class=3, split_seed=1), 0)
    assert {other.train.name(i) for i in range(30)} != names[0]
    assert len(open_data(DataSection(train_per_class=10_000), 0).train) == len(whole.train)
    assert few.facts().sha256 != more.facts().sha256


def test_a_stream_cannot_be_limited(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="read from the front"):
        open_data(DataSection(source=f"wds/{tmp_path}", train_per_class=3), 0)


def test_missing_path_names_its_sibling(write_folder, tmp_path: Path) -> None:
    root = write_folder(TWO_SPLITS, name="flowers")
    refused(lambda: opened(tmp_path / "flower"), "does not exist", f"Did you mean '{root}'")
    refused(lambda: opened(tmp_path / "flwers/train"), f"Did you mean '{root}'")
    refused(lambda: opened("digit"), "Did you mean 'digits'?")
    refused(lambda: opened("/zzz/qqq"), "'/zzz' does not exist", "hfds/NAME")


def test_missing_splits(write_folder) -> None:
    root = write_folder(TWO_SPLITS)
    refused(lambda: opened(root, val_split="valid"), "no split 'valid'", "train, val", "data.val_split")
    refused(lambda: opened(root, train_split="fit"), "no folder 'fit'", "data.train_split")
    shutil.rmtree(root / "train")
    refused(lambda: opened(root), "has 'val' but no 'train'", "data.train_split")
    refused(lambda: opened("digits", val_split="val"), "digits has no split 'val'")


def test_validation_images_without_labels(write_folder) -> None:
    root = write_folder({"train/a": 2, "train/b": 2, "val": 3})
    refused(lambda: opened(root), "3 images in no class folder", "val/0.png", "val/CLASS/")


def test_folder_without_classes(tmp_path: Path) -> None:
    refused(lambda: opened(tmp_path), "holds no class folders", "data.source")


def test_class_with_one_image(write_folder) -> None:
    root = write_folder({"a": 3, "lonely": 1})
    refused(lambda: opened(root), "Class 'lonely' has only 1 image", "Add images", "data.val_split")


def test_empty_class_folder(write_folder) -> None:
    root = write_folder({**TWO_SPLITS, "train/bird": 0, "val/bird": 1})
    refused(lambda: check_data(opened(root)), "the training set has no images in class 'bird'")


def test_classes_of_validation_differ(write_folder) -> None:
    root = write_folder({**TWO_SPLITS, "train/bird": 1, "val/fish": 1})
    refused(lambda: check_data(opened(root)), "only in training: 'bird'", "only in validation: 'fish'")


def test_single_class_and_no_images(write_folder) -> None:
    refused(lambda: check_data(opened(write_folder({"all": 3}))), "only one class", "one level too high")
    root = write_folder({"train/a": 0, "train/b": 0, "val/a": 1, "val/b": 1}, name="none")
    refused(lambda: check_data(opened(root)), "the training set has no images")


def test_files_of_other_kinds(tmp_path: Path) -> None:
    (tmp_path / "images.zip").write_bytes(b"PK")
    refused(lambda: opened(tmp_path / "images.zip"), "neither .npz nor .tar")
    (tmp_path / "text.tar").write_text("no tar")
    refused(lambda: opened(tmp_path / "text.tar"), "not a plain tar file", "tar -cf")
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a/0.png"), io.BytesIO())
    refused(lambda: opened(tmp_path / "packed.tar"), "compressed archive")


def test_tar_that_leaves_its_folder(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("../../a/0.png"), io.BytesIO())
    refused(lambda: opened(tmp_path / "evil.tar"), "'../../a/0.png' leaves the archive")


def test_tar_with_loose_images(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "flat.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("0.png"), io.BytesIO())
        tar.addfile(tarfile.TarInfo("a/0.png"), io.BytesIO())
    refused(lambda: opened(tmp_path / "flat.tar"), "1 images in no class folder")


@pytest.mark.parametrize(
    ("arrays", "parts"),
    [
        ({"x": np.zeros((4, 8, 8), np.float32), "y": np.zeros(4, int)}, ("'x' is float32", "uint8")),
        ({"x": np.zeros((4, 3, 8, 8), np.uint8), "y": np.zeros(4, int)}, ("[4, 3, 8, 8]", "transpose")),
        ({"x": np.zeros((4, 8, 8), np.uint8), "y": np.zeros(4)}, ("'y' is float64", "integers")),
        ({"x": np.zeros((4, 8, 8), np.uint8), "y": np.zeros(3, int)}, ("4 images but 3 labels",)),
        ({"x": np.zeros((4, 8, 8), np.uint8)}, ("no array 'y'", "labels are missing")),
        ({"images": np.zeros((4, 8, 8), np.uint8)}, ("neither 'x' nor 'x_train'", "It has: images")),
        ({"x": np.zeros((4, 8, 8), np.uint8), "y": np.full(4, -1)}, ("holds -1", "from 0")),
        (
            {"x": np.zeros((4, 8, 8), np.uint8), "y": np.full(4, 2), "classes": np.array(["a", "b"])},
            ("label 2 but only 2 names",),
        ),
        ({"x": np.zeros((4, 0, 0, 3), np.uint8), "y": np.arange(4) % 2}, ("[4, 0, 0, 3]", "no pixels")),
        ({"x": np.zeros((4, 8, 0), np.uint8), "y": np.arange(4) % 2}, ("[4, 8, 0]", "no pixels")),
        (
            {"x": np.zeros((4, 8, 8), np.uint8), "y": np.arange(4) % 3, "classes": np.array(["a", "b", "a"])},
            ("two classes are named 'a'",),
        ),
        (
            {"x": np.zeros((4, 8, 8), np.uint8), "y": np.arange(4) % 2, "classes": np.array(["a", "\udce9"])},
            ("not valid Unicode",),
        ),
        (
            {"x": np.array([print, None], object), "y": np.zeros(2, int)},
            ("not an .npz of plain arrays", "could run code"),
        ),
    ],
)
def test_bad_npz(tmp_path: Path, arrays, parts: tuple[str, ...]) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    refused(lambda: opened(tmp_path / "bad.npz"), "bad.npz", *parts)


@pytest.mark.parametrize(
    "labels", [np.array([0, 2**62]), np.array([0, 2**64 - 1], np.uint64), np.array([0, 2**63], np.uint64)]
)
@pytest.mark.parametrize("names", [{}, {"classes": np.array(["a", "b"])}])
def test_huge_labels_are_not_counted(tmp_path: Path, labels: np.ndarray, names: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "huge.npz", x=np.zeros((2, 8, 8), np.uint8), y=labels, **names)
    refused(lambda: opened(tmp_path / "huge.npz"), "huge.npz", str(labels.max()), "1,048,576 classes")


def test_images_without_pixels(tmp_path: Path) -> None:
    np.savez(tmp_path / "none.npz", x=np.zeros((2, 0, 0), np.uint8), y=np.array([0, 1]))
    refused(lambda: opened(tmp_path / "none.npz"), "none.npz", "no pixels")


def test_damaged_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "cut.npz", x=np.zeros((50, 8, 8), np.uint8), y=np.zeros(50, int))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:-200])
    refused(lambda: opened(tmp_path / "cut.npz"), "cut.npz cannot be read", "damaged")


@pytest.mark.parametrize(
    ("source", "module", "package"),
    [
        ("hfds/mnist", "datasets", "pip install datasets"),
        ("wds/.", "webdataset", "pip install webdataset"),
        ("tfds/mnist", "tensorflow_datasets", "pip install tensorflow-datasets"),
    ],
)
def test_reader_library_is_missing(monkeypatch, source: str, module: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EnvironmentProblem, match=package):
        opened(source)
