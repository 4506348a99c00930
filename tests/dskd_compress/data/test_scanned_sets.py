"""Training and the device see the same images in every folder; a tar gives those of the folder that was packed."""

from __future__ import annotations

import io
import os
import tarfile
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dskd_compress.config import DataSection
from dskd_compress.data import DataSets, check_data, iter_images, open_data
from dskd_export.errors import DataError
from dskd_export.runtime.labelled_images import open_labelled

CLASSES = ("a", "b", "c")


def picture(number: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """train/ and val/ with three classes, two images each."""
    for split in ("train", "val"):
        for name in CLASSES:
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(2):
                picture(number).save(folder / f"{number}.png")
    return tmp_path / "images"


def both(root: Path, change: Callable[[Path], None]) -> None:
    for split in ("train", "val"):
        change(root / split)


def opened(source: Path, **keys) -> DataSets:
    return open_data(DataSection(source=str(source), **keys), seed=0)


def other_suffixes(split: Path) -> None:
    for suffix in ("jfif", "jpe", "gif", "jp2", "mpo"):
        picture(7).save(split / "a" / f"x.{suffix}", "JPEG" if suffix in ("jfif", "jpe") else None)


def one_class_of_jfif(split: Path) -> None:
    for file in (split / "c").iterdir():
        picture(3).save(file.with_suffix(".jfif"), "JPEG")
        file.unlink()


def left_by_systems(split: Path) -> None:
    (split / "a/@eaDir/0.png").mkdir(parents=True)
    picture(0).save(split / "a/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg")
    for name in ("lost+found", "#recycle", "$RECYCLE.BIN", "System Volume Information", "@eaDir"):
        (split / name).mkdir()
    (split / "b/Thumbs.db").write_bytes(b"x")
    (split / "b/._0.png").write_bytes(b"x")


def never_opened(split: Path) -> None:
    os.mkfifo(split / "a/pipe.png")
    os.mkfifo(split / "pipe.png")


def links(split: Path) -> None:
    (split / "a/again").symlink_to("..")
    pool = split.parent.parent / f"pool of {split.name}"
    pool.mkdir()
    picture(9).save(pool / "9.png")
    (split / "b/more").symlink_to(pool)
    (split / "b/9.png").symlink_to(pool / "9.png")


def not_utf8(split: Path) -> None:
    (split / "a/0.png").rename(split / os.fsdecode(b"a/caf\xe9.png"))


def dangling(split: Path) -> None:
    (split / "a/gone.png").symlink_to("/not/mounted/0.png")


def without_pixels(split: Path) -> None:
    (split / "a/none.ppm").write_bytes(b"P6\n0 0\n255\n")


SITUATIONS = (
    other_suffixes,
    one_class_of_jfif,
    left_by_systems,
    never_opened,
    links,
    not_utf8,
    dangling,
    without_pixels,
)


@pytest.mark.parametrize("change", SITUATIONS, ids=lambda change: change.__name__)
def test_training_device_and_tar_agree(root: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    both(root, change)
    sets = opened(root)
    check_data(sets)
    facts = sets.facts()  # hashes every file
    assert facts.classes == list(CLASSES)
    assert facts.left_out == list(sets.left_out)

    skipped: list[str] = []
    trained = {
        (name.removeprefix("val/"), label, np.asarray(image).tobytes())
        for image, label, name in iter_images(sets.val, max_unreadable=1, skipped=skipped)
    }
    device = open_labelled(root / "val", CLASSES)
    skipped_there: list[str] = []
    images = [(label, np.asarray(image).tobytes()) for image, label in device.read(skipped_there, 1)]
    assert sorted(images) == sorted((label, pixels) for _, label, pixels in trained)
    assert skipped_there == [name.removeprefix("val/") for name in skipped]
    assert device.facts(skipped_there).val_images == len(sets.val)

    bad = change in (dangling, without_pixels)
    assert len(skipped) == (1 if bad else 0)
    if bad:
        with pytest.raises(DataError, match=r"1 of 7 images cannot be read.*a/(gone\.png|none\.ppm)"):
            list(iter_images(sets.val))
        with pytest.raises(DataError, match=r"1 of 7 images cannot be read.*a/(gone\.png|none\.ppm)"):
            list(device.read([], 0.1))

    if change is not links:  # these lead out of what is packed
        with tarfile.open(tmp_path / "images.tar", "w") as tar:
            tar.add(root, arcname=".")
        packed = opened(tmp_path / "images.tar")
        assert packed.facts().sha256 == facts.sha256
        assert packed.left_out == sets.left_out


def test_left_out_images_are_told_where_a_class_is_empty(root: Path) -> None:
    for file in (root / "train/c").iterdir():
        file.rename(file.with_suffix(".heic"))
    with pytest.raises(DataError, match="no images in class 'c'") as caught:
        check_data(opened(root))
    assert "2 files with no image suffix (.heic)" in (caught.value.hint or "")


def test_what_lies_outside_the_splits_is_counted(root: Path) -> None:
    (root / "test/a").mkdir(parents=True)
    picture(0).save(root / "loose.png")
    (root / "notes.txt").touch()
    assert opened(root).left_out == (
        "1 file with no image suffix (.txt)",
        "1 image outside the splits (loose.png)",
        "1 folder outside the splits (test)",
    )


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_class_or_a_split_that_leads_nowhere(root: Path, split: str) -> None:
    for place in (root / split / "c", root / split):
        place.rename(place.with_name(f"old {place.name}"))
        place.symlink_to("/not/mounted")
        with pytest.raises(DataError, match="a link to /not/mounted, which cannot be reached"):
            opened(root)
        place.unlink()
        place.with_name(f"old {place.name}").rename(place)
    (root / "val/d").symlink_to("/not/mounted")
    with pytest.raises(DataError, match="a link to /not/mounted, which cannot be reached"):
        open_labelled(root / "val", CLASSES)


def test_composed_and_decomposed_names(root: Path) -> None:
    composed, decomposed = "caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")
    (root / "train/c").rename(root / "train" / composed)
    (root / "val/c").rename(root / "val" / decomposed)
    with pytest.raises(DataError, match=r"'caf\\xe9' \(composed\) and 'cafe\\u0301' \(decomposed\)") as caught:
        check_data(opened(root))
    assert caught.value.hint is not None
    with pytest.raises(DataError, match=r"'cafe\\u0301' \(decomposed\) and 'caf\\xe9' \(composed\)"):
        open_labelled(root / "val", ("a", "b", composed))
    command = caught.value.hint.partition(": ")[2].replace("'", "'\\''")
    assert os.system(f"bash -c '{command}'") == 0
    check_data(opened(root))


def test_files_that_vanish_after_the_scan_are_unreadable(root: Path) -> None:
    sets, device = opened(root), open_labelled(root / "val", CLASSES)
    (root / "val/a/0.png").unlink()
    (root / "val/a/1.png").unlink()
    os.mkfifo(root / "val/a/1.png")
    sets.facts()
    device.facts([])
    skipped: list[str] = []
    assert len(list(iter_images(sets.val, max_unreadable=1, skipped=skipped))) == 4
    assert len(list(device.read(skipped, 1))) == 4
    assert skipped == ["val/a/0.png", "val/a/1.png", "a/0.png", "a/1.png"]


def add(tar: tarfile.TarFile, name: str, *, link: str | None = None, kind: bytes = tarfile.REGTYPE) -> None:
    member = tarfile.TarInfo(name)
    stream = io.BytesIO()
    if link is None and kind == tarfile.REGTYPE:
        picture(len(name)).save(stream, "PNG")
    else:
        member.type, member.linkname = kind, link or ""
    member.size = len(stream.getvalue())
    tar.addfile(member, io.BytesIO(stream.getvalue()))


def test_links_in_a_tar(tmp_path: Path) -> None:
    path = tmp_path / "images.tar"
    with tarfile.open(path, "w") as tar:
        add(tar, "./train/a/0.png")
        add(tar, "./train/a/1.png", link="./train/a/0.png", kind=tarfile.LNKTYPE)
        add(tar, "./train/a/2.png", link="1.png", kind=tarfile.SYMTYPE)
        add(tar, "./train/a/3.png", link="../../pool/x.png", kind=tarfile.SYMTYPE)
        add(tar, "./train/b", link="../pool", kind=tarfile.SYMTYPE)
        add(tar, "./train/a/up", link="..", kind=tarfile.SYMTYPE)
        add(tar, "./train/a/pipe.png", kind=tarfile.FIFOTYPE)
        add(tar, "./pool/x.png")
        add(tar, "./pool/long name.png")
    sets = opened(path, val_fraction=0.5)
    names = {s.name(i): np.asarray(s.image(i)).tobytes() for s in (sets.train, sets.val) for i in range(len(s))}
    assert sorted(names) == [*(f"train/a/{n}.png" for n in range(4)), "train/b/long name.png", "train/b/x.png"]
    assert [line.split(" (")[0] for line in sets.left_out] == [
        "1 folder outside the splits",
        "1 link to a folder that is scanned already",
        "1 FIFO",
    ]
    assert names["train/a/0.png"] == names["train/a/1.png"] == names["train/a/2.png"]
    assert names["train/a/3.png"] == names["train/b/x.png"] != names["train/a/0.png"]


def test_links_that_lead_out_of_a_tar(tmp_path: Path) -> None:
    path = tmp_path / "images.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("a", "b"):
            add(tar, f"{name}/0.png")
            add(tar, f"{name}/1.png")
        add(tar, "a/2.png", link="/etc/passwd", kind=tarfile.SYMTYPE)
        add(tar, "a/3.png", link="3.png", kind=tarfile.SYMTYPE)
        add(tar, "a/4.png", link="gone.png", kind=tarfile.LNKTYPE)
    sets = opened(path, val_fraction=0.4)
    assert len(sets.train) + len(sets.val) == 7
    skipped: list[str] = []
    for part in (sets.train, sets.val):
        list(iter_images(part, max_unreadable=1, skipped=skipped))
    assert sorted(skipped) == ["a/2.png", "a/3.png", "a/4.png"]
    sets.facts()
    with tarfile.open(path, "a") as tar:
        add(tar, "c", link="../elsewhere", kind=tarfile.SYMTYPE)
    with pytest.raises(DataError, match=r"c is a link to \.\./elsewhere, which cannot be reached"):
        opened(path)


def test_what_lies_next_to_the_folder_that_wraps_a_tar(tmp_path: Path) -> None:
    path = tmp_path / "images.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("pack/a/0.png", "pack/a/1.png", "pack/b/0.png", "pack/b/1.png", "__MACOSX/pack/a/._0.png"):
            add(tar, name)
        add(tar, "words.txt")
    assert opened(path, val_fraction=0.5).left_out == (
        "1 file with no image suffix (.txt)",
        "1 hidden or system folder (__MACOSX)",
    )


def test_a_tar_member_that_was_packed_again_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "images.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png", "a/0.png"):
            add(tar, name)
    sets = opened(path, val_fraction=0.5)
    assert len(sets.train) + len(sets.val) == 4


@pytest.mark.parametrize("name", ["images.tar", "images.npz", "images"])
def test_a_source_that_is_no_file(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="is a FIFO"):
        opened(tmp_path / name)


def test_a_validation_file_that_is_no_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", x=np.zeros((4, 8, 8), np.uint8), y=np.arange(4) % 2)
    os.mkfifo(tmp_path / "val.npz")
    with pytest.raises(DataError, match=r"val\.npz"):
        opened(tmp_path)
