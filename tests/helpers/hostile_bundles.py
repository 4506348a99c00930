"""Hundreds of damaged and hostile bundles, each opened in one process that watches what is opened.

    python tests/helpers/hostile_bundles.py FOLDER [EVERY]

makes a sound bundle in FOLDER, changes one thing at a time, and prints a line of JSON for each: its name,
what was said, the processor time, and what was opened outside of it or run. The last line is a control:
a file that is opened on purpose, so that a watch that sees nothing cannot pass.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import random
import shutil
import socket
import struct
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from bundle_support import (
    bundle_arguments,
    canonical,
    make_calibration,
    make_golden,
    make_model,
    make_spec,
    move_out,
    npy,
    protobuf_bytes,
    repack,
    replace_file,
    rewrite_manifest,
    varint,
    zipped,
)
from onnx import TensorProto, helper

from dskd_export.bundle import open_bundle, pack_bundle, unpack_bundle, verify_packed, write_bundle
from dskd_export.bundle.codec import CODECS, END, ZSTD, Codec, padding, tar_header
from dskd_export.errors import BundleError

Change = Callable[[Path], object]

SECRET = "secret.txt"
_GIGABYTES = 10_000_000_000


# --- a bundle in a folder


def folder_changes(names: list[str]) -> Iterator[tuple[str, Change]]:
    """Name -> what is done to a sound bundle."""
    yield from _damage(names)
    yield from _names()
    yield from _kinds_of_file(names)
    yield from _manifests()
    yield from _documents()
    yield from _golden()
    yield from _models()


def _edit(name: str, change: Callable[[bytes], bytes]) -> Change:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def _flip(data: bytes, position: int, bit: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed)


def _damage(names: list[str]) -> Iterator[tuple[str, Change]]:
    rng = random.Random(0)
    for name in names:
        for index in range(10):
            share, bit = rng.random(), rng.randrange(8)
            yield (
                f"{name}: bit flipped {index}",
                _edit(name, lambda d, s=share, b=bit: _flip(d, int(s * len(d)), b)),
            )
        for share in (0, rng.random(), 0.999):
            yield f"{name}: cut at {share:.2f}", _edit(name, lambda d, s=share: d[: int(s * len(d))])
        yield f"{name}: a byte more", _edit(name, lambda d: d + b"\0")
        yield f"{name}: missing", lambda folder, n=name: (folder / n).unlink()
        if name != "manifest.json":
            yield f"{name}: wrong hash", lambda f, n=name: _claim(f, n, sha256="0" * 64)
            yield f"{name}: a size too small", lambda f, n=name: _claim(f, n, size=1)
            yield f"{name}: claims 10 GB", lambda f, n=name: _claim(f, n, size=_GIGABYTES)
            yield f"{name}: not listed", lambda f, n=name: rewrite_manifest(f, lambda m: m["files"].pop(n))


def _claim(folder: Path, name: str, **facts: object) -> None:
    rewrite_manifest(folder, lambda manifest: manifest["files"][name].update(facts))


def _names() -> Iterator[tuple[str, Change]]:
    for name in (
        *(f"../{SECRET}", "/etc/passwd", "..\\secret", "a/b", "C:\\x", "spec.json\0", "SPEC.JSON", "", ".", ".."),
        *("manifest.json", "model.fp32.onnx\n", "model.fp32.onnx/", "model.FP32.onnx", "model..onnx", "~/x", "~"),
    ):
        facts = {"sha256": hashlib.sha256(b"secret").hexdigest(), "size": 6}
        yield (
            f"names {name!r}",
            lambda f, n=name, x=facts: rewrite_manifest(f, lambda m: m["files"].update({n: x})),
        )
    for name in ("extra.txt", ".hidden", "SPEC.JSON", "model.bf16.onnx", "model.fp32.onnx.data", "two\nlines"):
        yield f"holds {name!r}", lambda f, n=name: (f / n).write_text("x")
    yield "holds a folder", lambda f: (f / "sub").mkdir()


def _kinds_of_file(names: list[str]) -> Iterator[tuple[str, Change]]:
    def replaced(make: Change) -> Callable[[str], Change]:
        def with_name(name: str) -> Change:
            def change(folder: Path) -> None:
                outside = folder.parent / SECRET
                outside.write_bytes((folder / name).read_bytes())
                (folder / name).unlink()
                make(folder / name)

            return change

        return with_name

    def bind(path: Path) -> None:
        # A socket's path is short, and a test's folder may not be.
        here = Path.cwd()
        os.chdir(path.parent)
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(path.name)
        finally:
            os.chdir(here)

    kinds: dict[str, Change] = {
        "link to the same content": lambda path: path.symlink_to(path.parent.parent / SECRET),
        "link up": lambda path: path.symlink_to(f"../{SECRET}"),
        "link to itself": lambda path: path.symlink_to(path.name),
        "link to nothing": lambda path: path.symlink_to("nothing"),
        "link to a device without end": lambda path: path.symlink_to("/dev/zero"),
        "pipe": os.mkfifo,
        "folder": Path.mkdir,
        "socket": bind,
    }
    for kind, make in kinds.items():
        for name in names if kind in ("link to the same content", "pipe") else names[:2]:
            yield f"{name}: {kind}", replaced(make)(name)


def _manifests() -> Iterator[tuple[str, Change]]:
    def raw(data: bytes) -> Change:
        return lambda folder: (folder / "manifest.json").write_bytes(data)

    yield "manifest: empty", raw(b"")
    yield "manifest: list", raw(b"[]")
    yield "manifest: deep", raw(b'{"a":' * 150_000)
    yield "manifest: deep and closed", raw(b"[" * 900 + b"]" * 900)
    yield "manifest: integer without end", raw(b'{"schema_version": ' + b"9" * 900_000 + b"}")
    yield "manifest: NaN", raw(b'{"schema_version": NaN}')
    yield "manifest: infinite", raw(b'{"schema_version": 1e999}')
    yield "manifest: UTF-16", _edit("manifest.json", lambda d: d.decode().encode("utf-16"))
    yield "manifest: byte order mark", _edit("manifest.json", lambda d: b"\xef\xbb\xbf" + d)
    yield "manifest: spaces", _edit("manifest.json", lambda d: d + b" ")
    yield "manifest: key twice", _edit("manifest.json", lambda d: d.replace(b'"seed": 0', b'"seed": 1, "seed": 0'))
    yield (
        "manifest: pickle",
        raw(b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x94\x85\x94R\x94."),
    )
    yield "manifest: 1 TB", lambda folder: os.truncate(folder / "manifest.json", 1 << 40)
    changes: dict[str, Callable[[dict[str, Any]], object]] = {
        "newer": lambda m: m.update(schema_version=3),
        "older": lambda m: m.update(schema_version=1),
        "no version": lambda m: m.pop("schema_version"),
        "more keys": lambda m: m.update(surprise=1),
        "control characters": lambda m: m.update({"\x1b[2J\nline": 1}),
        "no models": lambda m: m.update(models={}),
        "a model more": lambda m: m["models"].update(fp8={"producer": "x"}),
        "negative size": lambda m: m["files"]["spec.json"].update(size=-1),
        "hash of other text": lambda m: m["files"]["spec.json"].update(sha256="../../etc"),
        "no provenance": lambda m: m.pop("provenance"),
    }
    for name, change in changes.items():
        yield f"manifest: {name}", lambda f, c=change: rewrite_manifest(f, c)


def _documents() -> Iterator[tuple[str, Change]]:
    spec = json.loads(make_spec().to_json())
    calibration = make_calibration().model_dump(mode="json")
    contents: dict[str, dict[str, bytes]] = {
        "spec.json": {
            "empty": b"{}",
            "deep": b"[" * 200_000,
            "key twice": b'{"height": 6, "height": 6}',
            "NaN": canonical(spec).replace(b"0.9", b"NaN"),
            "zero std": canonical(spec | {"std": [0, 0, 0]}),
            "other mean": canonical(spec | {"mean": [0, 0, 0]}),
            "huge": canonical(spec | {"height": 10**18, "width": 10**18}),
            "another class": canonical(spec | {"classes": [*spec["classes"], "more"]}),
            "BGR": canonical(spec | {"mean": spec["mean"][::-1]}),
            "not text": b"\xff\xfe",
            "control characters": canonical(spec | {"\x1b[2J\nline": 1}),
        },
        "labels.txt": {
            "shifted": b"class 1\nclass 2\nclass 3\nclass 4\nclass 5\nclass 6\nclass 0\n",
            "one less": b"class 0\n",
            "not text": b"\xff\xff",
            "empty": b"",
        },
        "calibration.json": {
            "empty": b"{}",
            "deep": b"[" * 200_000,
            "shared images": canonical(calibration | {"shared_images": 1}),
            "no such model": canonical(calibration | {"precisions": {"fp8": {"method": "max", "producer": "x"}}}),
            "no sha256": canonical(calibration | {"image_sha256": ["../../etc/passwd"]}),
            "guessed": canonical(calibration | {"precisions": {"int8": {"method": "guess", "producer": "x"}}}),
        },
    }
    for file, cases in contents.items():
        for name, data in cases.items():
            yield f"{file}: {name}", lambda f, n=file, d=data: replace_file(f, n, d)


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.system, ("touch pickle_was_run",)


def _golden() -> Iterator[tuple[str, Change]]:
    golden = make_golden()
    arrays = {name: getattr(golden, name) for name in ("input", "logits", "labels", "image_sha256")}

    def saved(**changes: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        np.savez(buffer, **(arrays | changes))  # type: ignore[arg-type]
        return buffer.getvalue()

    claim = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2500000000,), }"
    sound = golden.to_bytes()
    nan = golden.logits.copy()
    nan[0, 0] = np.nan
    cases = {
        "bomb": zipped({f"{name}.npy": npy(claim, bytes(30_000_000)) for name in arrays}, zipfile.ZIP_DEFLATED),
        "header claims 10 GB": zipped({f"{name}.npy": npy(claim) for name in arrays}),
        "header is code": zipped({f"{name}.npy": npy(b"__import__('os').system('true')") for name in arrays}),
        "header nests": zipped({f"{name}.npy": npy(b"(" * 60_000) for name in arrays}),
        "member claims 10 GB": sound.replace(sound[18:26], struct.pack("<2I", 0xFFFFFFFF, 0xFFFFFFFF)),
        "pickle": saved(labels=np.array([_Evil()] * 4, dtype=object)),
        "numpy's own": saved(),
        "member that leads out": zipped({"../../secret.npy": b"", **{f"{name}.npy": b"" for name in arrays}}),
        "comment": sound[:-2] + b"\x03\x00abc",
        "no zip": b"no zip",
        "empty": b"",
        "one image less": sound[: len(sound) // 2],
        "NaN": type(golden)(golden.input, nan, golden.labels, golden.image_sha256).to_bytes(),
        "no class": type(golden)(golden.input, golden.logits, golden.labels + 7, golden.image_sha256).to_bytes(),
        "no sha256": type(golden)(
            golden.input, golden.logits, golden.labels, np.array(["\x1b[2J".ljust(64, "x")] * 4)
        ).to_bytes(),
    }
    for name, data in cases.items():
        yield f"golden.npz: {name}", lambda f, d=data: replace_file(f, "golden.npz", d)


def _models() -> Iterator[tuple[str, Change]]:
    weights = "model.fp16.onnx.data"

    def model(change: Callable[[onnx.ModelProto], object]) -> bytes:
        made = make_model()
        change(made)
        return made.SerializeToString()

    def external(location: str = weights, **entries: str) -> bytes:
        def change(made: onnx.ModelProto) -> None:
            tensor = made.graph.initializer[1]
            move_out(tensor, location)
            for entry in tensor.external_data:
                entry.value = entries.get(entry.key, entry.value)

        return model(change)

    def hidden(place: Callable[[onnx.ModelProto], TensorProto]) -> bytes:
        def change(made: onnx.ModelProto) -> None:
            tensor = place(made)
            tensor.CopyFrom(TensorProto(name="w", data_type=1, dims=[1], raw_data=bytes(4)))
            move_out(tensor, f"../{SECRET}")

        return model(change)

    def claiming(*dims: int) -> bytes:
        def change(made: onnx.ModelProto) -> None:
            del made.graph.initializer[1].dims[:]
            made.graph.initializer[1].dims.extend(dims)

        return model(change)

    def attribute(made: onnx.ModelProto) -> onnx.AttributeProto:
        return made.graph.node.add(op_type="Constant").attribute.add(name="value")

    def context(made: onnx.ModelProto) -> None:
        node = made.graph.node.add(op_type="EPContext", domain="com.microsoft")
        node.attribute.append(helper.make_attribute("ep_cache_context", f"../{SECRET}"))

    deep = protobuf_bytes(5, b"")
    for _ in range(3000):
        deep = protobuf_bytes(1, protobuf_bytes(5, protobuf_bytes(6, deep)))
    cases = {
        **{
            f"weights in {location!r}": external(location)
            for location in (
                *(
                    f"../{SECRET}",
                    "/etc/passwd",
                    "/dev/zero",
                    "sub/x",
                    "./" + weights,
                    "..\\x",
                    weights + "\0",
                    "",
                ),
                *("*/_ORT_MEM_ADDR_/*", "spec.json", "manifest.json", "file:///etc/passwd", "~/x", "two\nlines"),
            )
        },
        "weights behind the end": external(offset="10000"),
        "weights longer than the file": external(length="10000"),
        "weights before the start": external(offset="-1"),
        "weights at no number": external(offset="0x10"),
        "weights at the end of the world": external(offset=str(10**18)),
        "in an attribute": hidden(lambda m: attribute(m).t),
        "in a list of an attribute": hidden(lambda m: attribute(m).tensors.add()),
        "in a subgraph": hidden(lambda m: attribute(m).g.initializer.add()),
        "in a list of subgraphs": hidden(lambda m: attribute(m).graphs.add().initializer.add()),
        "in a sparse tensor": hidden(lambda m: attribute(m).sparse_tensor.values),
        "in sparse tensors": hidden(lambda m: attribute(m).sparse_tensors.add().indices),
        "in a sparse initializer": hidden(lambda m: m.graph.sparse_initializer.add().values),
        "in a function": hidden(lambda m: m.functions.add().node.add().attribute.add().t),
        "in a default of a function": hidden(lambda m: m.functions.add().attribute_proto.add().t),
        "in the training": hidden(lambda m: m.training_info.add().algorithm.initializer.add()),
        "claims 10 GB": claiming(_GIGABYTES // 4),
        "claims the world": claiming(1 << 31, 1 << 31, 1 << 31),
        "negative": claiming(-1, -1),
        "EPContext": model(context),
        "deep": protobuf_bytes(7, deep),
        "endless small fields": protobuf_bytes(7, b"\x0a\x00" * 1_500_000),
        "length of 10 GB": b"\x3a" + varint(_GIGABYTES) + b"x",
        "number without end": b"\x08" + b"\xff" * 100,
        "text": b"no model at all",
        "empty": b"",
        "another spec": model(lambda m: helper.set_model_props(m, make_spec(crop_pct=0.5).to_metadata())),
        "control characters": model(lambda m: helper.set_model_props(m, {"dskd_spec": '{"\x1b[2J\\n": 1}'})),
        "spec of no end": model(lambda m: helper.set_model_props(m, {"dskd_spec": "[" * 100_000})),
        "two graphs": make_model().SerializeToString() + make_model().SerializeToString(),
        "nothing beside it": make_model().SerializeToString(),
    }
    for name, data in cases.items():
        yield f"model.fp16.onnx: {name}", lambda f, d=data: replace_file(f, "model.fp16.onnx", d)
    yield "model.fp16.onnx.data: cut and signed", lambda f: replace_file(f, weights, b"short")


# --- a packed bundle


def packed_changes(packed: Path, codec: Codec, folder: Path) -> Iterator[tuple[str, Change]]:
    """Name -> what is done to a sound packed bundle."""
    rng = random.Random(1)
    length = packed.stat().st_size
    for index in range(40):
        position = index if index < 10 else rng.randrange(length)
        bit = rng.randrange(8)
        yield f"bit flipped at {position}", lambda p, o=position, b=bit: p.write_bytes(_flip(p.read_bytes(), o, b))
    for end in (0, 1, codec.begin - 1, codec.begin, length // 2, length - 1):
        yield f"cut at {end}", lambda p, e=end: p.write_bytes(p.read_bytes()[:e])
    yield "a byte more", lambda p: p.write_bytes(p.read_bytes() + b"\0")
    yield "twice", lambda p: p.write_bytes(p.read_bytes() * 2)

    def body(data: bytes) -> bytes:
        compressor = codec.compressor()
        return compressor.compress(data) + compressor.flush()

    def signed(data: bytes) -> Change:
        return lambda path: repack(path, data)

    archives = dict(_archives(folder))
    whole = archives["sound"]
    for name, data in archives.items():
        yield f"archive: {name}", signed(body(data))
    compressed = body(whole)
    yield "stream cut and signed", signed(compressed[: len(compressed) // 2])
    yield "stream of noise", signed(rng.randbytes(5000))
    yield "bomb", signed(body(whole[:-1024] + bytes(80_000_000)))
    yield "bomb in the first header", signed(body(bytes(80_000_000)))


def _header(name: str, size: int, /, **fields: bytes) -> bytes:
    """A header as ours are, but for some fields; its checksum fits."""
    places = {
        **{"name": (0, 100), "mode": (100, 8), "uid": (108, 8), "size": (124, 12), "mtime": (136, 12)},
        **{"type": (156, 1), "link": (157, 100), "magic": (257, 8), "user": (265, 32), "prefix": (345, 155)},
    }
    header = bytearray(tar_header(name, size))
    for field, value in fields.items():
        start, length = places[field]
        header[start : start + length] = value.ljust(length, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    assert tarfile.TarInfo.frombuf(bytes(header), "ascii", "strict")  # others would take it
    return bytes(header)


def _archives(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Archives with one thing each that ours never have; the first one has nothing."""
    names = ["manifest.json", *open_bundle(folder).manifest.order]
    files = [(name, (folder / name).read_bytes()) for name in names]

    def filled(data: bytes) -> bytes:
        return data + padding(len(data))

    plain = [tar_header(name, len(data)) + filled(data) for name, data in files]
    yield "sound", b"".join(plain) + END

    def instead(index: int, *members: bytes) -> bytes:
        return b"".join([*plain[:index], *members, *plain[index + 1 :]]) + END

    def member(index: int, **fields: bytes) -> bytes:
        name, data = files[index]
        return _header(name, len(data), **fields) + filled(data)

    for index in (0, 1, 5):
        what = files[index][0]
        for name in (f"../{what}", f"/{what}", "/etc/passwd", f"a/{what}", f"./{what}", what.upper(), f"{what} "):
            yield f"{what} is called {name}", instead(index, member(index, name=name.encode()))
        yield f"{what} in a folder", instead(index, member(index, prefix=b"/etc"))
        kinds = {
            "hard link": b"1",
            "link": b"2",
            "device": b"3",
            "block device": b"4",
            "folder": b"5",
            "pipe": b"6",
        }
        for kind, code in kinds.items():
            yield f"{what} is a {kind}", instead(index, _header(what, 0, type=code, link=f"../{SECRET}".encode()))
            yield f"{what} is a {kind} with content", instead(index, member(index, type=code, link=b"/etc/passwd"))
        yield f"{what} runs as root", instead(index, member(index, mode=b"0004755"))
        yield f"{what} has an owner", instead(index, member(index, uid=b"0001750", user=b"me"))
        yield f"{what} has a day", instead(index, member(index, mtime=b"14524677400"))
        yield f"{what} claims 8 GB", instead(index, member(index, size=b"77777777777"))
        yield f"{what} claims more", instead(index, member(index, size=b"\x80" + b"\xff" * 11))
        yield f"{what} claims less", instead(index, member(index, size=b"00000000001"))
        yield f"{what} is of another tar", instead(index, member(index, magic=b"ustar  "))
        yield f"{what} twice", instead(index, plain[index], plain[index])
        yield f"{what} missing", instead(index)
        yield f"{what} altered", instead(index, plain[index][:512] + bytes(reversed(plain[index][512:])))
        yield f"{what} cut", instead(index, plain[index][:512])
        pax = b"30 path=/etc/passwd_0123456789\n"
        yield (
            f"{what} behind a pax header",
            instead(index, _header("pax", len(pax), type=b"x") + filled(pax), plain[index]),
        )
        yield (
            f"{what} behind a pax header of 8 GB",
            instead(index, _header("pax", len(pax), type=b"x", size=b"77777777777") + filled(pax), plain[index]),
        )
        yield (
            f"{what} behind a long name",
            instead(index, _header("long", 300, type=b"L", magic=b"ustar  ") + filled(b"x" * 300), plain[index]),
        )
    yield "other order", b"".join([plain[0], *reversed(plain[1:])]) + END
    yield "a member more", b"".join([*plain, _header("extra", 1) + filled(b"x")]) + END
    yield "nothing", END
    yield "no end", b"".join(plain)
    yield "half an end", b"".join(plain) + END[:512]
    yield "twice", (b"".join(plain) + END) * 2


# --- the watch


class Watch:
    """Records what the interpreter opens, lists, imports or runs outside of one folder."""

    def __init__(self) -> None:
        self._inside: str | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def start(self, inside: Path) -> None:
        self.seen = []
        self._inside = os.path.realpath(inside)

    def stop(self) -> list[str]:
        self._inside = None
        return self.seen

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._inside is None:
            return
        inside, self._inside = self._inside, None  # what is asked for here is not watched
        try:
            if event in ("open", "os.listdir", "os.scandir"):
                if isinstance(arguments[0], int):  # what is open already was seen when it was opened
                    return
                real = os.path.realpath(os.fsdecode(arguments[0]))
                if real != inside and not real.startswith(inside + os.sep):
                    self.seen.append(f"{event} {real}")
            elif event.split(".")[0] in ("subprocess", "socket", "pickle", "ctypes", "import", "exec", "compile"):
                # Renaming a folder into its place asks the C library, which is no business of a bundle's.
                self.seen.append(f"{event} {arguments[:1]}")
        finally:
            self._inside = inside


def _try(name: str, read: Callable[[], object], watch: Watch, inside: Path) -> dict[str, Any]:
    message, refused = "", False
    watch.start(inside)
    began = time.process_time()
    try:
        read()
    except BundleError as error:
        message, refused = str(error), True
    except BaseException as error:
        message = f"{type(error).__name__}: {error}"
    took = time.process_time() - began
    return {"name": name, "refused": refused, "message": message, "cpu_s": took, "outside": watch.stop()}


def main(root: Path, every: int = 1) -> None:
    sound = root / "sound"
    write_bundle(sound, **bundle_arguments())
    watch = Watch()
    case = root / "case"

    def tell(result: dict[str, Any]) -> None:
        print(json.dumps(result), flush=True)

    def prepare() -> None:
        shutil.rmtree(case, ignore_errors=True)
        case.mkdir()
        (case / SECRET).write_text("secret")

    # Twice: what is imported when it is first needed is there before anything is watched.
    for _ in range(2):
        prepare()
        shutil.copytree(sound, case / "bundle")
        result = _try("sound bundle", lambda: open_bundle(case / "bundle"), watch, case / "bundle")
    tell(result)
    names = sorted(path.name for path in sound.iterdir())
    for name, change in itertools.islice(folder_changes(names), 0, None, every):
        prepare()
        shutil.copytree(sound, case / "bundle")
        change(case / "bundle")
        tell(_try(name, lambda: open_bundle(case / "bundle"), watch, case / "bundle"))

    for codec in CODECS:
        if codec is ZSTD:
            try:
                import zstandard  # noqa: F401
            except ModuleNotFoundError:
                continue
        packed = pack_bundle(sound, root / f"sound{codec.suffix}")
        cases: list[tuple[str, Change]] = [("sound", lambda path: None)] * 2
        hostile = itertools.islice(packed_changes(packed, codec, sound), 0, None, every)
        for name, change in [*cases, *hostile]:
            prepare()
            target = case / packed.name
            shutil.copyfile(packed, target)
            change(target)
            reads = {
                "verified": lambda t=target: verify_packed(t),
                "unpacked": lambda t=target: unpack_bundle(t, case / "out"),
            }
            for how, read in reads.items():
                result = _try(f"{codec.suffix} {how}: {name}", read, watch, case)
                left = {path.name for path in case.iterdir()} - {SECRET, target.name}
                if result["refused"] and left:
                    result["outside"].append(f"left {sorted(left)}")
                tell(result)

    tell(_try("control", lambda: (root / "sound" / "spec.json").read_bytes(), watch, case))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
