from __future__ import annotations

import os
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dskd_export.errors import DataError
from dskd_export.runtime.labelled_images import open_labelled

CLASSES = ("cat", "dog", "7")


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name in ("dog/a.png", "dog/deep/b.jpg", "cat/c.png", "cat/notes.txt", "cat/.hidden.png"):
        save(tmp_path / name) if not name.endswith(".txt") else (tmp_path / name).write_text("no image")
    return tmp_path


def test_class_folders(folders: Path) -> None:
    found = open_labelled(folders, CLASSES)
    assert dict(zip(found.files, found.labels.tolist(), strict=True)) == {
        "cat/c.png": 0,
        "dog/a.png": 1,
        "dog/deep/b.jpg": 1,
    }
    assert [label for _, label in found.read([], 0.0)] == [0, 1, 1]


def test_a_table(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / name)
    # A number is a class's name where there is one, and else its place.
    (tmp_path / "labels.csv").write_text("label,file\ndog,a.png\n7,b.png\n0,c.png\n")
    found = open_labelled(tmp_path, CLASSES)
    assert found.files == ("a.png", "b.png", "c.png")
    assert found.labels.tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,class\n", "no columns file and label"),
        ("file,label\na.png,bird\n", "line 2: 'bird' is no class"),
        ("file,label\nb.png,cat\n", "line 2: there is no image b.png"),
        ("file,label\n../a.png,cat\n", "there is no image ../a.png in the folder"),
        ("file,label\n", "no labelled images"),
        ("file,label\n" + "a.png,cat\n" * 2_000_001, "2,000,002 lines; at most 2,000,000"),
        ("file;label\na.png;cat\n", "it has 'file;label'"),
        ("", "no columns file and label"),
        ("file,label\na.png\n", "line 2: 2 columns, but another number of values"),
        ("file,label\na.png,cat,big\n", "line 2: 2 columns, but another number of values"),
        ("file,label\na.png,cat\n./a.png,dog\n", "a.png has the label 'cat' in line 2 and 'dog' in line 3"),
        ("file,label\n.,cat\n", "no image . in the folder"),
        ("file,label\nsub/../../a.png,cat\n", "in the folder"),
        ("file,label\n/etc/passwd,cat\n", "no image /etc/passwd in the folder"),
        ("file,label\nsub,cat\n", "no image sub in the folder"),
        ("file,label\npipe.png,cat\n", "no image pipe.png in the folder"),
        ("file,label\na\0.png,cat\n", "line"),
        (f"file,label\n{'x' * 5000}.png,cat\n", "in the folder"),
        (f"file,label\na.png,{'9' * 5000}\n", "is no class"),
    ],
)
def test_a_table_that_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    folder = tmp_path / "photos"
    save(folder / "a.png")
    save(tmp_path / "a.png")
    (folder / "sub").mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        open_labelled(folder, CLASSES)


def test_a_table_that_is_not_utf8(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    for data in ("file,label\na.png,caf\u00e9\n".encode("latin-1"), "file,label\n".encode("utf-16")):
        (tmp_path / "labels.csv").write_bytes(data)
        with pytest.raises(DataError, match="is not UTF-8"):
            open_labelled(tmp_path, CLASSES)


def test_a_table_as_people_write_it(tmp_path: Path) -> None:
    for name in ("a.png", "b, c.png", "sub/d.png", "unlisted.png", "sub/x.txt"):
        save(tmp_path / name) if not name.endswith(".txt") else (tmp_path / name).touch()
    (tmp_path / "away.png").symlink_to("/not/mounted/away.png")
    absolute = tmp_path / "sub/d.png"
    text = f'file,label\r\na.png,cat\r\n\r\na.png,cat,\r\n"b, c.png",dog\r\n{absolute},7\r\naway.png,7\r\n'
    (tmp_path / "labels.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = open_labelled(tmp_path, CLASSES)
    assert found.files == ("a.png", "b, c.png", str(absolute), "away.png")
    assert found.labels.tolist() == [0, 1, 2, 2]
    assert found.left_out == ("1 image that labels.csv does not list (unlisted.png)",)
    skipped: list[str] = []
    assert len(list(found.read(skipped, 1))) == 3
    assert skipped == ["away.png"]
    found.facts(skipped)


def test_folders_that_are_wrong(folders: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        open_labelled(folders / "none", CLASSES)
    for name, line in {
        "my photos.tar.gz": ["mkdir", "my photos", "&&", "tar", "-xf", "{}", "-C", "my photos"],
        "photos.tgz": ["mkdir", "photos", "&&", "tar", "-xf", "{}", "-C", "photos"],
        "labels.csv": ["--images", str(folders)],
        "a.png": [],
    }.items():
        file = folders / name
        file.touch()
        with pytest.raises(DataError, match="is a file") as caught:
            open_labelled(file, CLASSES)
        assert caught.value.hint
        if line:
            pasted = shlex.split(caught.value.hint.partition(": ")[2])
            assert pasted == [word.format(file) for word in line]
        file.unlink()
    with pytest.raises(DataError, match=r"'dog'.*'cat'"):
        open_labelled(folders, ("cat",))
    save(folders / "loose.png")
    with pytest.raises(DataError, match=r"images without a class, for example loose\.png"):
        open_labelled(folders, CLASSES)


def test_images_that_cannot_be_read(folders: Path) -> None:
    (folders / "dog/a.png").write_bytes(b"no image")
    found = open_labelled(folders, CLASSES)
    with pytest.raises(DataError, match=r"1 of 3 images cannot be read: dog/a\.png \(") as caught:
        list(found.read([], 0.1))
    assert str(caught.value.hint).endswith(" --set data.max_unreadable=0.5")
    with pytest.raises(DataError, match="1 of 3 images cannot be read") as caught:
        list(found.read([], None))
    assert "max_unreadable" not in str(caught.value.hint)  # it has no effect there
    skipped: list[str] = []
    assert [label for _, label in found.read(skipped, 0.5)] == [0, 1]
    assert found.facts(skipped).skipped == skipped == ["dog/a.png"]
    (folders / "dog/deep/b.jpg").write_bytes((folders / "dog/deep/b.jpg").read_bytes()[:-9])
    with pytest.raises(DataError, match=r"2 of 3 images cannot be read: dog/a\.png \(.*; dog/deep/b\.jpg \("):
        list(found.read([], None))


def test_the_first_are_drawn_from_all_classes_and_the_hash_tells_them_apart(tmp_path: Path) -> None:
    for name in CLASSES:
        for index in range(20):
            save(tmp_path / name / f"{index}.png")
    found = open_labelled(tmp_path, CLASSES)
    some = found.first(15, seed=0)
    assert len(some.files) == 15
    assert set(some.labels.tolist()) == {0, 1, 2}
    assert found.first(15, seed=0).facts([]) == some.facts([])
    assert found.facts([]).sha256 != some.facts([]).sha256
    assert found.first(None, 0) is found.first(60, 0) is found
    assert np.all(np.diff([found.files.index(name) for name in some.files]) > 0)
