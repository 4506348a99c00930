from __future__ import annotations

import os
from pathlib import Path

import pytest
from bundle_support import contents, repack

from dskd_export.bundle import open_bundle, pack_bundle, unpack_bundle, verify_packed
from dskd_export.bundle.codec import END, GZIP, ZSTD, Codec, padding, tar_header
from dskd_export.bundle.unpack import default_folder
from dskd_export.errors import BundleError, EnvironmentProblem, UsageError

ALTERED = r"was altered or cut off|is not a packed bundle"


@pytest.fixture(params=[GZIP, ZSTD], ids=lambda codec: codec.suffix)
def codec(request: pytest.FixtureRequest) -> Codec:
    if request.param is ZSTD:
        pytest.importorskip("zstandard")
    return request.param


@pytest.fixture
def packed(folder: Path, codec: Codec, tmp_path: Path) -> Path:
    return pack_bundle(folder, tmp_path / f"b{codec.suffix}")


def members(folder: Path) -> list[tuple[str, bytes]]:
    return [
        (name, (folder / name).read_bytes()) for name in ("manifest.json", *open_bundle(folder).manifest.order)
    ]


def archive(files: list[tuple[str, bytes]]) -> bytes:
    return b"".join(tar_header(name, len(data)) + data + padding(len(data)) for name, data in files) + END


def compressed(codec: Codec, data: bytes) -> bytes:
    compressor = codec.compressor()
    return compressor.compress(data) + compressor.flush()


def test_what_this_file_packs_is_what_pack_packs(folder: Path, packed: Path, codec: Codec) -> None:
    """Or the refusals below would prove nothing."""
    before = packed.read_bytes()
    repack(packed, compressed(codec, archive(members(folder))))
    verify_packed(packed)
    assert len(before) == pytest.approx(len(packed.read_bytes()), rel=0.1)


def test_no_bit_of_it_can_change(packed: Path, tmp_path: Path) -> None:
    data = packed.read_bytes()
    step = max(1, len(data) // 300)
    for position in [*range(60), *range(60, len(data), step), *range(len(data) - 20, len(data))]:
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        packed.write_bytes(changed)
        with pytest.raises(BundleError, match=ALTERED):
            verify_packed(packed)


@pytest.mark.parametrize("length", [0, 1, 10, 47, 48, 100, -1, -8])
def test_cut_off(packed: Path, length: int, tmp_path: Path) -> None:
    packed.write_bytes(packed.read_bytes()[:length])
    with pytest.raises(BundleError, match=ALTERED):
        unpack_bundle(packed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_something_behind_it(packed: Path) -> None:
    packed.write_bytes(packed.read_bytes() + b"\0")
    with pytest.raises(BundleError, match="was altered"):
        verify_packed(packed)


def test_where_it_goes(packed: Path, tmp_path: Path) -> None:
    assert default_folder(packed) == tmp_path / "b"
    assert unpack_bundle(packed, tmp_path / "deep/out").folder == tmp_path / "deep/out"
    renamed = packed.rename(tmp_path / "download")
    with pytest.raises(UsageError, match="--out"):
        unpack_bundle(renamed)
    assert open_bundle(unpack_bundle(renamed, tmp_path / "out").folder).precisions == ("fp16", "fp32", "int8")


def test_only_a_bundle_is_replaced(packed: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    unpack_bundle(packed, out)
    (out / "labels.txt").write_text("damaged")
    unpack_bundle(packed, out)
    assert contents(out) == contents(folder)
    (out / "notes.txt").write_text("years of work")
    with pytest.raises(BundleError, match="no bundle"):
        unpack_bundle(packed, out)
    assert (out / "notes.txt").exists()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EnvironmentProblem, match="cannot be written"):
        unpack_bundle(packed, tmp_path / "file")


def test_what_is_refused_leaves_the_bundle_that_was_there(packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    unpack_bundle(packed, out)
    before = contents(out)
    packed.write_bytes(packed.read_bytes()[:-1])
    with pytest.raises(BundleError):
        unpack_bundle(packed, out)
    assert contents(out) == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_is_no_file(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="missing"):
        verify_packed(tmp_path / "none.tar.gz")
    with pytest.raises(BundleError, match="plain file"):
        verify_packed(tmp_path)
    os.mkfifo(tmp_path / "pipe.tar.gz")
    with pytest.raises(BundleError, match="plain file"):
        verify_packed(tmp_path / "pipe.tar.gz")
    (tmp_path / "link.tar.gz").symlink_to(packed)
    verify_packed(tmp_path / "link.tar.gz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files[1:], r"does not begin with manifest\.json"),
        (lambda files: [files[1], files[0], *files[2:]], r"does not begin with manifest\.json"),
        (lambda files: [files[0], *files], r"spec\.json is out of place"),
        (lambda files: [*files[:2], files[1], *files[2:]], r"labels\.txt is out of place"),
        (lambda files: [files[0], *reversed(files[1:])], r"spec\.json is out of place"),
        (lambda files: files[:-1], r"model\.int8\.onnx is out of place"),
        (lambda files: [*files, files[-1]], "follows its last file"),
        (lambda files: [*files, ("extra", b"")], "follows its last file"),
        (lambda files: [files[0], ("../spec.json", files[1][1]), *files[2:]], "out of place"),
        (lambda files: [files[0], ("/spec.json", files[1][1]), *files[2:]], "out of place"),
        (lambda files: [files[0], (files[1][0], files[1][1] + b" "), *files[2:]], "out of place"),
        (lambda files: [files[0], (files[1][0], files[1][1].swapcase()), *files[2:]], "sha256"),
        (lambda files: [("manifest.json", files[0][1].swapcase()), *files[1:]], "not valid JSON|was altered"),
        (lambda files: [("manifest.json", b" " * (1 << 20) + b"x"), *files[1:]], "does not begin with"),
        (lambda files: [], r"does not begin with manifest\.json"),
    ],
)
def test_what_else_an_archive_may_hold(
    change, message: str, folder: Path, packed: Path, codec: Codec, tmp_path: Path
) -> None:
    repack(packed, compressed(codec, archive(change(members(folder)))))
    for read in (verify_packed, lambda file: unpack_bundle(file, tmp_path / "out")):
        with pytest.raises(BundleError, match=message) as caught:
            read(packed)
        assert str(caught.value).isprintable()
    assert not (tmp_path / "out").exists()


def test_the_end(folder: Path, packed: Path, codec: Codec) -> None:
    whole = archive(members(folder))
    for data, message in (
        (whole[:-512], "it ends too early"),
        (whole[:-1024], "it ends too early"),
        (whole[:-1500], "it ends too early|data between|its sha256 differs"),
        (whole + b"\0", "follows its last file"),
        (whole + bytes(512), "follows its last file"),
        (whole[:-1] + b"x", "follows its last file"),
        (whole[:600], "it ends too early"),
        (whole[:100], "it ends too early"),
        (b"", "it ends too early"),
    ):
        repack(packed, compressed(codec, data))
        with pytest.raises(BundleError, match=message):
            verify_packed(packed)


def test_padding_holds_nothing(folder: Path, packed: Path, codec: Codec) -> None:
    first = members(folder)[0][1]
    whole = bytearray(archive(members(folder)))
    assert len(first) % 512
    whole[512 + len(first)] = 1
    repack(packed, compressed(codec, bytes(whole)))
    with pytest.raises(BundleError, match="data between its files"):
        verify_packed(packed)


def test_damage_inside_that_somebody_signed(folder: Path, packed: Path, codec: Codec) -> None:
    body = packed.read_bytes()[codec.begin :]
    for position in range(0, len(body), max(1, len(body) // 40)):
        changed = bytearray(body)
        changed[position] ^= 0xFF
        repack(packed, bytes(changed))
        with pytest.raises(BundleError) as caught:
            verify_packed(packed)
        assert str(caught.value).isprintable()
    for length in (0, 1, len(body) // 2, len(body) - 1):
        repack(packed, body[:length])
        if length < len(body) // 2 + 1 or codec is GZIP:
            with pytest.raises(BundleError):
                verify_packed(packed)
