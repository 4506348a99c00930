"""Read which files an ONNX file refers to, and its metadata, without the onnx package.

ONNX Runtime opens whatever file a tensor names, so the names are checked before it sees the model, on
devices that have no onnx. Only this is read of the protobuf: the way from the model through graphs,
nodes, attributes and functions to every tensor. Numbers of fields are those of onnx.proto. A graph may
still ask for more memory when it runs than a device has; what it holds cannot.

Wire format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from dskd_export.errors import BundleError, ModelError
from dskd_export.files.json_text import one_line

# Message -> number of a field -> the message in it. All ways to a tensor, and no others.
CHILDREN: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 14: "StringStringEntryProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
}
# A second one would be merged into the first, and what was checked in parts be read as a whole.
SINGLE: dict[str, frozenset[int]] = {
    "ModelProto": frozenset({7}),
    "TrainingInfoProto": frozenset({1, 2}),
    "NodeProto": frozenset({4}),
    "AttributeProto": frozenset({5, 6, 22}),
    "SparseTensorProto": frozenset({1, 2}),
    "TensorProto": frozenset({2, 8, 9, 14}),
    "StringStringEntryProto": frozenset({1, 2}),
}
_GRAPH, _OPSET_IMPORT, _OP_TYPE = 7, 8, 4
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 8, 9, 13, 14

_WANTED: dict[str, frozenset[int]] = {
    **{kind: frozenset(below) for kind, below in CHILDREN.items()},
    "ModelProto": frozenset({_OPSET_IMPORT, *CHILDREN["ModelProto"]}),
    "NodeProto": frozenset({_OP_TYPE, *CHILDREN["NodeProto"]}),
    "TensorProto": frozenset({_DIMS, _DATA_TYPE, _NAME, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION}),
    "StringStringEntryProto": frozenset({1, 2}),
    "OperatorSetIdProto": frozenset({1, 2}),
}

# TensorProto.DataType -> bits of a value; a string has no fixed length.
BITS = {
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((7, 11, 13, 14), 64),
    15: 128,
    **dict.fromkeys((21, 22, 23), 4),
    **dict.fromkeys((25, 26), 2),
    **dict.fromkeys((27, 28), 6),
}

# Far above any model of timm; half a second of a desktop's time.
MAX_FIELDS = 600_000
MAX_DEPTH = 64

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_REFUSE = "Do not use this bundle."


@dataclass
class OnnxFacts:
    """What was read.

    Attributes:
        metadata: `metadata_props` of the model.
        external_bytes: end of the last tensor in the weights file; None: no tensor is there.
    """

    metadata: dict[str, str] = field(default_factory=dict)
    external_bytes: int | None = None


def read_onnx(data: bytes, where: str, *, weights_name: str, weights_size: int | None) -> OnnxFacts:
    """Walk an ONNX file from end to end.

    Args:
        data: the file.
        where: its place, for messages.
        weights_name: the only other file that may hold a tensor.
        weights_size: bytes of that file; None: there is none.

    Raises:
        BundleError: it is not an ONNX model; a tensor is stored in another file, or beyond its end; a tensor
            claims more values than there are; or a node would open a file when it is loaded.
    """
    return _Walk(data, where, weights_name, weights_size).run()


def opset_of(data: bytes, where: str) -> int:
    """Return the version of ONNX's own operator set that a model uses.

    Raises:
        ModelError: this is no ONNX file, or it names no operator set.
    """
    try:
        if (found := _Walk(data, where, "", None).opset()) is not None:
            return found
    except (_Damaged, BundleError) as error:
        raise ModelError(f"{where} is no ONNX file, or damaged.", "Run: dskd-compress export RUN") from error
    raise ModelError(f"{where} names no ONNX operator set.", "Run: dskd-compress export RUN")


class _Damaged(ValueError):
    """The bytes are no protobuf."""


class _Walk:
    def __init__(self, data: bytes, where: str, weights_name: str, weights_size: int | None) -> None:
        self._data = data
        self._where = where
        self._weights_name = weights_name
        self._weights_size = weights_size
        self._left = MAX_FIELDS
        self._facts = OnnxFacts()

    def run(self) -> OnnxFacts:
        waiting = [("ModelProto", 0, len(self._data), 0)]
        try:
            while waiting:
                kind, begin, end, depth = waiting.pop()
                if depth > MAX_DEPTH:
                    raise self._refused(f"it nests more than {MAX_DEPTH} messages")
                if kind == "TensorProto":
                    self._tensor(begin, end)
                elif kind == "StringStringEntryProto":
                    key, value = self._entry(begin, end)
                    if key in self._facts.metadata:
                        raise self._refused(f"its metadata holds '{one_line(key)}' twice")
                    self._facts.metadata[key] = value
                else:
                    waiting += [(*child, depth + 1) for child in self._children(kind, begin, end)]
        except _Damaged as error:
            raise BundleError(
                f"{self._where} is not an ONNX model: {error}.", "Export it again: dskd-compress export"
            ) from error
        return self._facts

    def opset(self) -> int | None:
        for number, value in self._fields("ModelProto", 0, len(self._data)):
            if number == _OPSET_IMPORT:
                span = self._span(value)
                entry = dict(self._fields("OperatorSetIdProto", span.start, span.stop))
                if self._text(entry.get(1, range(0))) in ("", "ai.onnx") and 2 in entry:
                    return self._number(entry[2])
        return None

    def _children(self, kind: str, begin: int, end: int) -> Iterator[tuple[str, int, int]]:
        below = CHILDREN[kind]
        graphs = 0
        for number, value in self._fields(kind, begin, end):
            if number in below:
                if isinstance(value, int):
                    raise _Damaged(f"field {number} of a {kind} is a number")
                graphs += number == _GRAPH
                yield below[number], value.start, value.stop
            elif kind == "NodeProto" and number == _OP_TYPE and self._text(value) == "EPContext":
                raise self._refused("it holds an EPContext node, which makes ONNX Runtime open another file")
        if kind == "ModelProto" and not graphs:
            raise _Damaged("it has no graph")

    def _tensor(self, begin: int, end: int) -> None:
        count, data_type, name, raw, external, outside = 1, 0, "", None, {}, False
        for number, value in self._fields("TensorProto", begin, end):
            if number == _DIMS:
                for length in [value] if isinstance(value, int) else self._varints(value):
                    count *= length  # of a negative length it becomes huge
                    if count > 1 << 63:
                        raise self._refused("a tensor claims too many values")
            elif number == _DATA_TYPE:
                data_type = self._number(value)
            elif number == _NAME:
                name = self._text(value)
            elif number == _RAW_DATA:
                raw = len(self._span(value))
            elif number == _DATA_LOCATION:
                outside = self._number(value) != 0
            elif number == _EXTERNAL_DATA:
                span = self._span(value)
                key, text = self._entry(span.start, span.stop)
                if key in external:
                    raise self._refused(f"tensor '{one_line(name)}' names its place twice")
                external[key] = text
        named = f"tensor '{one_line(name)}'"
        bits = BITS.get(data_type)
        size = None if bits is None else (count * bits + 7) // 8
        if outside or external:
            if not outside or raw:
                raise self._refused(f"{named} is stored in two places")
            self._external(external, named, size)
        elif raw is not None and size is not None and raw != size:
            raise self._refused(f"{named} claims {size:,} bytes and has {raw:,}")
        elif count > 8 * (end - begin):  # the smallest encoding has two bits a value, this is beyond all
            raise self._refused(f"{named} claims {count:,} values in {end - begin:,} bytes")

    def _external(self, entries: dict[str, str], named: str, size: int | None) -> None:
        location = entries.get("location", "")
        # Exactly this name: no folder, no link out of it, and none of the markers that mean memory.
        if location != self._weights_name:
            raise self._refused(f"{named} is stored in '{one_line(location)}', outside the bundle's own file")
        if self._weights_size is None:
            raise self._refused(f"{named} is stored in {self._weights_name}, which is missing")
        if unknown := entries.keys() - {"location", "offset", "length", "checksum"}:
            raise self._refused(f"{named} has an unknown key '{one_line(min(unknown))}'")
        offset, length = (self._decimal(entries.get(key, ""), key, named) for key in ("offset", "length"))
        if offset + length > self._weights_size:
            raise self._refused(
                f"{named} ends at byte {offset + length:,} of {self._weights_name}, "
                f"which has {self._weights_size:,}"
            )
        if size is not None and size != length:
            raise self._refused(f"{named} claims {size:,} bytes and has {length:,}")
        self._facts.external_bytes = max(self._facts.external_bytes or 0, offset + length)

    def _decimal(self, text: str, key: str, named: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 19):
            raise self._refused(f"{named} has no {key} in {self._weights_name}")
        return int(text)

    def _entry(self, begin: int, end: int) -> tuple[str, str]:
        key = value = ""
        for number, content in self._fields("StringStringEntryProto", begin, end):
            if number == 1:
                key = self._text(content)
            elif number == 2:
                value = self._text(content)
        return key, value

    def _refused(self, why: str) -> BundleError:
        return BundleError(f"{self._where} is refused: {why}.", _REFUSE)

    # --- the wire format

    def _fields(self, kind: str, begin: int, end: int) -> Iterator[tuple[int, int | range]]:
        """Number and value of each field that matters: an integer, or the range of its bytes."""
        data, position, left = self._data, begin, self._left
        wanted, single = _WANTED[kind], SINGLE.get(kind, frozenset())
        seen: set[int] = set()
        while position < end:
            left -= 1
            if left < 0:
                raise self._refused(f"it has more than {MAX_FIELDS:,} fields")
            key = data[position]
            position += 1
            if key > 0x7F:
                key, position = self._varint(position - 1, end)
            number, wire = key >> 3, key & 7
            start, value = position, 0
            if wire == _BYTES:
                length, start = self._varint(position, end)
                position = start + length
            elif wire == _VARINT:
                value, position = self._varint(position, end)
            elif wire in (_FIXED64, _FIXED32):
                position += 8 if wire == _FIXED64 else 4
            else:
                raise _Damaged(f"byte {start - 1:,} begins a field of unknown kind")
            if number == 0 or position > end:
                raise _Damaged(f"a field ends outside of its message at byte {end:,}")
            if number in wanted:
                if number in single and number in seen:
                    raise self._refused(f"field {number} of a {kind} appears twice")
                seen.add(number)
                self._left = left
                yield number, value if wire == _VARINT else range(start, position)
                left = self._left
        self._left = left

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        """A variable-length integer, taken as unsigned, and the position behind it."""
        data, value, shift = self._data, 0, 0
        if position < end and data[position] < 0x80:  # nearly all of them
            return data[position], position + 1
        while True:
            if position >= end or shift > 63:
                raise _Damaged(f"a number does not end at byte {position:,}")
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
            shift += 7

    def _varints(self, span: range) -> Iterator[int]:
        position = span.start
        while position < span.stop:
            self._left -= 1
            if self._left < 0:
                raise self._refused(f"it has more than {MAX_FIELDS:,} fields")
            value, position = self._varint(position, span.stop)
            yield value

    def _number(self, value: int | range) -> int:
        if not isinstance(value, int):
            raise _Damaged("a number is written as bytes")
        return value

    def _span(self, value: int | range) -> range:
        if isinstance(value, int):
            raise _Damaged("bytes are written as a number")
        return value

    def _text(self, value: int | range) -> str:
        span = self._span(value)
        if len(span) > 1 << 23:
            raise _Damaged("a text is longer than any name")
        return self._data[span.start : span.stop].decode("utf-8", errors="backslashreplace")
