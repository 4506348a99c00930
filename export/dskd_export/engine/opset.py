"""Read the operator set from the outermost fields of an ONNX file: a device has no onnx package.

Wire format: https://protobuf.dev/programming-guides/encoding/, numbers of fields: onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator

from dskd_export.errors import ModelError

_OPSET_IMPORT, _DOMAIN, _VERSION = 8, 1, 2


def opset_of(model: bytes, where: str) -> int:
    """Return the version of ONNX's own operator set that a model uses.

    Raises:
        ModelError: this is no ONNX file, or it names no operator set.
    """
    try:
        for number, value in _fields(memoryview(model)):
            if number == _OPSET_IMPORT and isinstance(value, memoryview):
                entry = dict(_fields(value))
                domain, version = entry.get(_DOMAIN, b""), entry.get(_VERSION)
                if bytes(domain) in (b"", b"ai.onnx") and isinstance(version, int):
                    return version
    except IndexError as error:
        raise ModelError(f"{where} is no ONNX file, or damaged.", "Run: dskd-compress export RUN") from error
    raise ModelError(f"{where} names no ONNX operator set.", "Run: dskd-compress export RUN")


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of each field; IndexError if the bytes end early or are no protobuf."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        kind = key & 7
        if kind == 0:
            value, position = _varint(data, position)
            yield key >> 3, value
            continue
        if kind == 2:
            size, position = _varint(data, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise IndexError
        if position + size > len(data):
            raise IndexError
        yield key >> 3, data[position : position + size]
        position += size


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for index in range(10):  # 64 bits, seven a byte
        byte = data[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise IndexError
