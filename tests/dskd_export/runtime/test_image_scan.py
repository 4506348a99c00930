from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from dskd_export.errors import DataError
from dskd_export.files.names import make_printable
from dskd_export.runtime.folder_tree import DiskTree
from dskd_export.runtime.image_scan import LeftOut, image_suffixes, is_image, scan_classes
from dskd_export.runtime.images import UnreadableImage, open_image


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def scan(root: Path) -> tuple[dict[str, list[str]], list[str]]:
    left_out = LeftOut()
    found = scan_classes(DiskTree(root), "", left_out)
    assert found.loose == []
    return {name: sorted(files) for name, files in found.classes.items()}, left_out.lines()


def test_suffixes_are_those_of_photos_that_pillow_opens(tmp_path: Path) -> None:
    photos = {"jpg", "jpeg", "jfif", "jpe", "png", "gif", "webp", "bmp", "tif", "tiff", "jp2", "mpo", "ppm", "pgm"}
    assert image_suffixes() >= photos
    assert not image_suffixes() & {"pdf", "eps", "ps", "mpg", "mpeg", "h5", "hdf", "grib", "bufr", "wmf", "heic"}
    # Pillow writes each of them, and what is written is opened: no suffix that is an image by name alone.
    picture = Image.new("RGB", (8, 8), (200, 30, 30))
    for suffix in sorted(photos | image_suffixes() & {"avif"}):  # Pillow before 11.3 had no AVIF
        file = tmp_path / f"x.{suffix.upper()}"
        picture.save(file, "JPEG" if suffix in ("jfif", "jpe") else None)
        assert is_image(file.name)
        assert open_image(file).size == (8, 8)


def test_an_animation_is_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert open_image(tmp_path / "x.gif").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    "name", ["x.txt", "x", "x.", ".png", "._x.png", "Thumbs.db", "desktop.ini", "x.heic", "png"]
)
def test_what_is_no_image(name: str) -> None:
    assert not is_image(name)


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    touch(tmp_path / "a/0.png", tmp_path / "a/deep/1.JPG", tmp_path / "b/0.png", tmp_path / "README.txt")
    touch(tmp_path / "a/0.xml", tmp_path / "a/1.xml", tmp_path / "a/._0.png", tmp_path / "b/Thumbs.db")
    touch(tmp_path / "a/@eaDir/0.png/thumb.jpg", tmp_path / "b/.ipynb_checkpoints/0.png")
    for name in ("lost+found", "#recycle", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", ".cache"):
        (tmp_path / name).mkdir()
    classes, left_out = scan(tmp_path)
    assert classes == {"a": ["a/0.png", "a/deep/1.JPG"], "b": ["b/0.png"]}
    assert [line.split(" (")[0] for line in left_out] == [
        "4 files with no image suffix",
        "1 hidden file",
        "8 hidden or system folders",
    ]
    assert "(.db, .txt, .xml)" in left_out[0]


def test_names_in_the_message_are_plain_text(tmp_path: Path) -> None:
    touch(tmp_path / "a/0.png", tmp_path / "a/x.\x1b[31m\n", tmp_path / f"a/x.{'y' * 200}")
    assert scan(tmp_path)[1] == [rf"2 files with no image suffix (.\x1b[31m\n, .{'y' * 39}...)"]


def test_what_would_wait_or_act_is_never_opened(tmp_path: Path) -> None:
    touch(tmp_path / "a/0.png", tmp_path / "b/0.png")
    os.mkfifo(tmp_path / "a/pipe.png")
    (tmp_path / "b/device.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "a/socket.png"))
        classes, left_out = scan(tmp_path)
    assert classes == {"a": ["a/0.png"], "b": ["b/0.png"]}
    assert [line.split(" (")[0] for line in left_out] == ["1 FIFO", "1 socket", "1 device"]
    # One that takes an image's place after the scan.
    with pytest.raises(UnreadableImage, match="not a plain file"):
        open_image(tmp_path / "a/pipe.png")


def test_links_are_followed_each_folder_once(tmp_path: Path) -> None:
    root = tmp_path / "images"
    touch(root / "a/0.png", root / "b/0.png", tmp_path / "pool/more/1.png", tmp_path / "2.png")
    (root / "a/more").symlink_to(tmp_path / "pool/more")
    (root / "a/more too").symlink_to(tmp_path / "pool/more")
    (root / "a/2.png").symlink_to(tmp_path / "2.png")
    (root / "b/up").symlink_to("..")
    (root / "b/self").symlink_to(root / "b")
    (root / "c").symlink_to(tmp_path / "pool")
    (root / "a/more").unlink()  # of the class c, by its link
    (root / "a/more too").unlink()
    (root / "a/more").symlink_to(root / "a")
    classes, left_out = scan(root)
    assert classes == {"a": ["a/0.png", "a/2.png"], "b": ["b/0.png"], "c": ["c/more/1.png"]}
    assert [line.split(" (")[0] for line in left_out] == ["3 links to folders that are scanned already"]


@pytest.mark.parametrize("inner", [False, True])
def test_one_folder_in_two_classes(tmp_path: Path, inner: bool) -> None:
    touch(tmp_path / "a/0.png", tmp_path / "b/0.png")
    (tmp_path / ("a/c" if inner else "c")).symlink_to(tmp_path / "b")
    with pytest.raises(DataError, match="same folder"):
        scan(tmp_path)


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    touch(tmp_path / "a/0.png")
    (tmp_path / "a/1.png").symlink_to("/not/mounted/1.png")
    (tmp_path / "a/2.png").symlink_to("2.png")  # to itself
    (tmp_path / "a/notes").symlink_to("/not/mounted/notes")
    classes, left_out = scan(tmp_path)
    assert classes == {"a": ["a/0.png", "a/1.png", "a/2.png"]}
    assert left_out == ["1 dangling link (notes)"]
    for name in ("1.png", "2.png"):
        with pytest.raises(UnreadableImage):
            open_image(tmp_path / "a" / name)
    (tmp_path / "b").symlink_to("/not/mounted")
    with pytest.raises(DataError, match="a link to /not/mounted, which cannot be reached"):
        scan(tmp_path)


def rename_from_bytes(folder: Path, old: str, new: bytes) -> str:
    return (folder / old).rename(folder / os.fsdecode(new)).name


def test_a_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    touch(tmp_path / "a/0.png")
    name = rename_from_bytes(tmp_path / "a", "0.png", b"caf\xe9.png")
    assert scan(tmp_path)[0] == {"a": [f"a/{name}"]}
    assert make_printable(name) == r"caf\xe9.png"


def test_a_class_name_that_is_not_utf8_is_refused_with_its_mending(tmp_path: Path) -> None:
    touch(tmp_path / "my a/0.png", tmp_path / "b/0.png")
    rename_from_bytes(tmp_path, "b", b"caf\xe9")
    with pytest.raises(DataError, match=r"caf\\xe9 is not named in UTF-8") as caught:
        scan(tmp_path)
    assert caught.value.hint is not None
    assert os.system(f"bash -c {shell_quoted(caught.value.hint.partition(': ')[2])}") == 0
    assert set(scan(tmp_path)[0]) == {"my a", "café"}


def shell_quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


@pytest.fixture
def unlistable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    def make() -> Path:
        touch(tmp_path / "a/0.png")
        scandir = os.scandir

        def refuse(path: Path):
            if Path(path).name == "a":
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refuse)
        return tmp_path

    return make


def test_a_folder_that_cannot_be_listed(unlistable: Callable[[], Path]) -> None:
    with pytest.raises(DataError, match="a: Permission denied"):
        scan(unlistable())
