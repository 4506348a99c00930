from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from bundle_support import contents, replace_file

from dskd_export.bundle import open_bundle, pack_bundle, unpack_bundle, verify_packed
from dskd_export.bundle import pack as pack_module
from dskd_export.bundle.codec import GZIP, ZSTD, Codec, default_codec
from dskd_export.errors import BundleError, EnvironmentProblem, MissingExtra, UsageError

CODECS = [GZIP, ZSTD]


@pytest.fixture(params=CODECS, ids=lambda codec: codec.suffix)
def codec(request: pytest.FixtureRequest) -> Codec:
    if request.param is ZSTD:
        pytest.importorskip("zstandard")
    return request.param


def test_there_and_back(folder: Path, codec: Codec, tmp_path: Path) -> None:
    packed = pack_bundle(folder, tmp_path / f"b{codec.suffix}")
    assert packed == tmp_path / f"b{codec.suffix}"
    opened = open_bundle(folder)
    assert verify_packed(packed) == verify_packed(packed)
    assert verify_packed(packed).manifest == opened.manifest
    unpacked = unpack_bundle(packed)
    assert unpacked.folder == tmp_path / "b"
    assert unpacked.sha256 == opened.sha256
    assert contents(unpacked.folder) == contents(folder)
    open_bundle(unpacked.folder)


def test_the_same_bundle_gives_the_same_bytes(folder: Path, codec: Codec, tmp_path: Path) -> None:
    one = pack_bundle(folder, tmp_path / f"one{codec.suffix}")
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for path in copy.iterdir():
        path.chmod(0o600)
    two = pack_bundle(copy, tmp_path / f"two{codec.suffix}")
    assert one.read_bytes() == two.read_bytes()


def test_the_first_bytes_are_the_sha256_of_the_rest(folder: Path, codec: Codec, tmp_path: Path) -> None:
    data = pack_bundle(folder, tmp_path / f"b{codec.suffix}").read_bytes()
    assert data.startswith(codec.mark)
    assert data[len(codec.mark) : codec.begin] == hashlib.sha256(data[codec.begin :]).digest()


def test_other_tools_read_it(folder: Path, tmp_path: Path) -> None:
    packed = pack_bundle(folder, tmp_path / "b.tar.gz")
    with tarfile.open(packed) as archive:
        assert archive.getnames() == ["manifest.json", *open_bundle(folder).manifest.order]
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xzf", packed, "-C", tmp_path / "out"], check=True)
    assert contents(tmp_path / "out") == contents(folder)


@pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd here")
def test_the_zstd_program_reads_it(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("zstandard")
    packed = pack_bundle(folder, tmp_path / "b.tar.zst")
    done = subprocess.run(["zstd", "-d", "-c", packed], check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout), mode="r:") as archive:
        assert archive.getnames()[0] == "manifest.json"


def test_by_default_it_lies_beside_the_bundle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pack_bundle(folder) == folder.with_name(f"bundle{default_codec().suffix}")
    monkeypatch.setattr(pack_module, "default_codec", lambda: GZIP)
    monkeypatch.chdir(folder)
    assert pack_bundle(Path()) == folder.with_name("bundle.tar.gz")


def test_without_zstandard_it_is_gzip(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> None:
    zst = None
    if default_codec() is ZSTD:
        zst = pack_bundle(folder, tmp_path / "b.tar.zst")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert default_codec() is GZIP
    with pytest.raises(MissingExtra, match=r"dskd-compress\[zstd\]"):
        pack_bundle(folder, tmp_path / "c.tar.zst")
    assert not (tmp_path / "c.tar.zst").exists()
    if zst is not None:
        with pytest.raises(MissingExtra, match=r"dskd-compress\[zstd\]"):
            verify_packed(zst)


@pytest.mark.parametrize("name", ["b.zip", "b.tar", "b.tar.xz", "b", ".tar.gz", "b.TAR.GZ"])
def test_other_endings(folder: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"\.tar\.zst or \.tar\.gz"):
        pack_bundle(folder, tmp_path / name)


def test_only_a_packed_bundle_is_replaced(folder: Path, codec: Codec, tmp_path: Path) -> None:
    out = tmp_path / f"b{codec.suffix}"
    for data in (b"years of work", b""):
        out.write_bytes(data)
        with pytest.raises(BundleError, match="packed bundle"):
            pack_bundle(folder, out)
        assert out.read_bytes() == data
    out.unlink()
    out.mkdir()
    with pytest.raises(UsageError, match=r"bundle\.tar\.gz"):
        pack_bundle(folder, out)
    out.rmdir()
    pack_bundle(folder, out)
    pack_bundle(folder, out)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_damaged_bundle_is_not_packed(folder: Path, tmp_path: Path) -> None:
    (folder / "labels.txt").write_text("other")
    with pytest.raises(BundleError, match=r"labels\.txt"):
        pack_bundle(folder, tmp_path / "b.tar.gz")
    assert not (tmp_path / "b.tar.gz").exists()


def test_a_bundle_that_changes_meanwhile(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_and_change(path: Path):
        bundle = open_bundle(path)
        data = (path / "labels.txt").read_bytes()
        (path / "labels.txt").write_bytes(data.replace(b"0", b"9"))
        return bundle

    monkeypatch.setattr(pack_module, "open_bundle", open_and_change)
    with pytest.raises(BundleError, match=r"labels\.txt changed"):
        pack_bundle(folder, tmp_path / "b.tar.gz")
    assert list(tmp_path.iterdir()) == [folder.parent]


def test_a_file_of_several_chunks(
    folder: Path, codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("pack", "unpack", "verify"):
        monkeypatch.setattr(f"dskd_export.bundle.{module}.CHUNK", 100)
    packed = pack_bundle(folder, tmp_path / f"b{codec.suffix}")
    assert contents(unpack_bundle(packed).folder) == contents(folder)


def test_a_folder_that_cannot_be_written_to(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EnvironmentProblem, match="cannot be written"):
        pack_bundle(folder, tmp_path / "file/b.tar.gz")
    replace_file(folder, "labels.txt", (folder / "labels.txt").read_bytes())
    open_bundle(folder)
