"""Damage files at random: bits and ranges of any file, values of a document, headers of arrays."""

from __future__ import annotations

import copy
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

_MARK = "@raw {}@"

Mutation = Callable[[bytes, random.Random], bytes]

# Written as they stand: some of them are no JSON.
NUMBERS = (
    *("0", "-1", "-0.0", "1e-320", "0.1", "1e308", "1e320", "-1e320", "NaN", "Infinity", "-Infinity"),
    *("2147483648", "9223372036854775807", "4611686018427387904", "18446744073709551616", "1" + "0" * 320),
    "9" * 5000,
)
OTHERS = (
    *("null", "true", "false", '""', '"x"', '"\\ud800"', '"\\u0000"', '"\u2028"', '"NaN"', "[]", "{}", "[[]]"),
    *('{"a":1,"a":2}', "[" * 300 + "]" * 300, '{"a":' * 400 + "1" + "}" * 400, "[" * 5000),
    '"' + "x" * 20_000 + '"',
    "[" + "0," * 400 + "0]",
)
EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
TEXTS = (
    b"\xff",
    b"\xc3",
    b"\0",
    b"\n",
    b"\r",
    b'"',
    b"{",
    b"[",
    b"- ",
    b"&a ",
    b"*a ",
    b"!!x ",
    b"<<: ",
    b",",
    b": ",
)


def damage_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip bits, cut off, double, swap, zero or overwrite: one to four times."""
    made = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not made:
            break
        at, length = rng.randrange(len(made)), rng.choice((1, 4, 16, 100, 2000))
        match rng.randrange(9):
            case 0 | 1:
                made[at] ^= 1 << rng.randrange(8)
            case 2:
                del made[at:]
            case 3:
                made[at:at] = made[at : at + length] * rng.choice((1, 1, 50))
            case 4:
                del made[at : at + length]
            case 5:
                size = rng.choice((1, 2, 4, 8))
                made[at : at + size] = (rng.choice(EDGES) % 256**size).to_bytes(
                    size, rng.choice(("little", "big"))
                )
            case 6:
                made[at : at + length] = bytes(len(made[at : at + length]))
            case 7:
                made[at:at] = rng.choice(TEXTS)
            case _:
                made += rng.randbytes(length)
    return bytes(made)


def damage_value(data: bytes, rng: random.Random) -> bytes:
    """Replace, drop, double or add values of a JSON document at random places."""
    raws: list[str] = []
    text = json.dumps(_damage_document(json.loads(data), rng, raws))
    for number, raw in enumerate(raws):
        text = text.replace(f'"{_MARK.format(number)}"', raw)
    return text.encode("utf-8", "surrogatepass")


def damage_json(data: bytes, rng: random.Random) -> bytes:
    """Damage a value most often, else bytes, else both."""
    made = damage_value(data, rng) if rng.random() < 0.75 else data
    return damage_bytes(made, rng) if made is data or rng.random() < 0.1 else made


def damage_lines(data: bytes, rng: random.Random) -> bytes:
    """Damage one line of a file of JSON lines, or the bytes of the file."""
    lines = data.splitlines(keepends=True)
    if rng.random() < 0.3:
        return damage_bytes(data, rng)
    at = rng.randrange(len(lines))
    lines[at] = damage_json(lines[at].rstrip(b"\n"), rng) + rng.choice((b"\n", b"\n", b"\n", b"", b"\xc3"))
    return b"".join(lines)


def damage_zip(data: bytes, rng: random.Random) -> bytes:
    """Damage headers, content or compression of members, with valid checksums; or the bytes."""
    if rng.random() < 0.4:
        return damage_bytes(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    at = rng.choice(list(members))
    members[at] = _damage_header(members[at], rng) if rng.random() < 0.7 else damage_bytes(members[at], rng)
    buffer = io.BytesIO()
    way = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(buffer, "w", way) as archive:
        for name, content in members.items():
            archive.writestr(rng.choice((name, name, name, name, "y.npy", "../x.npy", "x")), content)
    made = bytearray(buffer.getvalue())
    match rng.randrange(6):
        case 0:  # marked as encrypted, in both places
            for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
                made[made.find(mark) + flags] |= 1
        case 1:  # marked as larger than it is
            place = made.find(b"PK\x01\x02") + 24
            made[place : place + 4] = struct.pack("<I", rng.choice((0, 1, 2**20, 2**31, 2**32 - 2)))
        case 2:
            made[rng.randrange(30, 200) % len(made)] ^= 0xFF
    return bytes(made)


def damage_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Damage values of the JSON header and of the JSON in its metadata; or the bytes."""
    if rng.random() < 0.3:
        return damage_bytes(data, rng)
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    if rng.random() < 0.6:
        key = rng.choice(list(header["__metadata__"]))
        inner = damage_json(header["__metadata__"][key].encode(), rng)
        header["__metadata__"][key] = inner.decode("utf-8", "replace")
        made = json.dumps(header).encode()
    else:
        made = damage_value(json.dumps(header).encode(), rng)
    size = len(made) if rng.random() < 0.9 else rng.choice(EDGES)
    return struct.pack("<Q", size) + made + data[8 + length :]


# Kinds of members, numbers in octal and in base 256 (negative too), and names.
_TAR_VALUES = (
    *(b"0", b"1", b"2", b"3", b"5", b"6", b"x", b"g", b"L", b"K", b"S", b"A", b"\0"),
    *(b"\xff" * 12, b"\x80" + bytes(7) + b"\x7f\xff\xff\xff", b"77777777777", b"-1", b"99999999999"),
    *(b"../../x", b"/etc/x", b"\xc3"),
)


def damage_tar(data: bytes, rng: random.Random) -> bytes:
    """Damage fields of headers, with valid checksums; or the bytes."""
    made = bytearray(data)
    if rng.random() < 0.3:
        return damage_bytes(data, rng)
    for _ in range(rng.randint(1, 3)):
        block = 512 * rng.randrange(len(made) // 512)
        begin, size = rng.choice(
            ((0, 100), (100, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (345, 155))
        )
        value = rng.choice(_TAR_VALUES)
        made[block + begin : block + begin + size] = value[:size].ljust(size, b"\0")
        header = made[block : block + 512]
        header[148:156] = b" " * 8
        made[block + 148 : block + 156] = b"%06o\0 " % sum(header)
    if rng.random() < 0.3:
        made[rng.randrange(len(made))] = rng.randrange(256)
    return bytes(made)


def _damage_header(member: bytes, rng: random.Random) -> bytes:
    """Damage the header of a numpy array, or the values under it."""
    end = member.index(b"\n") + 1
    kind = rng.choice(
        ("'|u1'", "'<i8'", "'<u8'", "'<f8'", "'|O'", "'<U9'", "'|S0'", "'<M8[s]'", "'|V8'", "'<c16'", "[1]")
    )
    shape = rng.choice(
        ("()", "(0,)", "(2,)", "(4,)", "(-1,)", "(2, 4, 4, 3)", "(4, 0, 0)", "(4611686018427387904,)")
    )
    shape = rng.choice(
        (shape, shape, "(" * 3000, "(9223372036854775808, 2)", "(1000000000,)", "(1, " * 100 + ")" * 100)
    )
    text = f"{{'descr': {kind}, 'fortran_order': {rng.choice(('False', 'True', '3'))}, 'shape': {shape}, }}"
    if rng.random() < 0.4:  # the header stays
        values = rng.choice((struct.pack("<q", rng.choice(EDGES[:12])), b"\xff" * 8, bytes(8)))
        body = member[end:]
        return member[:end] + values * (len(body) // 8) + body[len(body) // 8 * 8 :]
    header = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", min(len(header), 65535)) + header + member[end:]


def _damage_document(value: Any, rng: random.Random, raws: list[str]) -> Any:
    """Change a document in place; a value outside JSON is inserted as an index into `raws`."""

    def raw(choices: tuple[str, ...]) -> str:
        raws.append(rng.choice(choices))
        return _MARK.format(len(raws) - 1)

    for _ in range(rng.randint(1, 3)):
        places = list(_list_places(value))
        if not places:
            return raw(OTHERS)
        inside, key = rng.choice(places)
        match rng.randrange(8):
            case 0:
                del inside[key]
            case 1 if isinstance(inside, dict):
                inside[rng.choice(("surprise", "", "\ud800", "a\nb", "x" * 5000))] = inside[key]
            case 1:
                inside[key:key] = [inside[key]] * rng.choice((1, 3, 200))
            case 2 | 3 | 4:
                inside[key] = raw(NUMBERS)
            case 5:
                other, place = rng.choice(places)
                inside[key] = copy.deepcopy(other[place])
            case _:
                inside[key] = raw(OTHERS)
    return value


def _list_places(value: Any) -> Iterator[tuple[Any, Any]]:
    """List every container with each of its keys."""
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield value, key
            yield from _list_places(item)
