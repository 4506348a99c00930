"""Golden images: real inputs with the reference's logits, to check a device by.

`golden.npz` is what numpy reads: a zip of stored `.npy` files. It is written here byte by byte, as
what `zipfile` and `numpy` write depends on their versions; so the spec and the number of images fix
every byte but the values. Reading is comparing: no header of an untrusted file is ever parsed, and
no length in it is trusted.

Formats: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT (zip) and
https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html (npy).
Shape suffixes: B images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dskd_export.errors import BundleError
from dskd_export.spec import ModelSpec

_EXPORT_AGAIN = "Export it again: dskd-compress export"

# A member: version to read it, flags, method, time, date, CRC-32, size stored, size, length of its name and extra.
_MEMBER = struct.Struct("<5H3I2H")
_LOCAL, _CENTRAL, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_MADE_BY = (3 << 8) | 20  # on Unix, by version 2.0 of the format
_DATE = (1 << 5) | 1  # 1 January 1980, the earliest that a zip can say
_MODE = 0o644 << 16


@dataclass(frozen=True)
class Golden:
    """Real inputs and the reference's answers.

    Attributes:
        input: [B, ...], preprocessed: in the type and layout that the spec says.
        logits: float32 [B, K], of the reference; where the model gives probabilities, their logarithms.
        labels: int64 [B], indices of classes.
        image_sha256: text [B], sha256 of each source image's pixels, 64 hexadecimal digits.
    """

    input: NDArray[Any]
    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    image_sha256: NDArray[np.str_]

    def check(self, spec: ModelSpec, where: str) -> None:
        """Check types, shapes and ranges against the spec.

        Raises:
            BundleError: names the first array that does not fit.
        """
        images = len(self.labels) if self.labels.ndim else 0
        for name, (dtype, shape) in _one_image(spec).items():
            array, expected = getattr(self, name), (images, *shape)
            if array.dtype != dtype or array.shape != expected:
                raise BundleError(
                    f"{where}: {name} is {array.dtype} {list(array.shape)}, "
                    f"the spec requires {dtype} {list(expected)}.",
                    _EXPORT_AGAIN,
                )
        if not images:
            raise BundleError(f"{where} holds no images.", _EXPORT_AGAIN)
        if not (np.isfinite(self.input).all() and np.isfinite(self.logits).all()):
            raise BundleError(f"{where} holds NaN or Inf.", _EXPORT_AGAIN)
        if self.labels.min() < 0 or self.labels.max() >= len(spec.classes):
            raise BundleError(f"{where}: a label is not one of {len(spec.classes)} classes.", _EXPORT_AGAIN)
        # As numbers: a text of numpy's may hold what is no character, and then cannot even be shown.
        if not np.isin(_flat_bytes(self.image_sha256).view(np.uint32), list(b"0123456789abcdef")).all():
            raise BundleError(f"{where}: image_sha256 is not a sha256.", _EXPORT_AGAIN)

    def to_bytes(self) -> bytes:
        """An `.npz` archive; the same arrays give the same bytes, on any day and machine."""
        return b"".join(self._pieces())

    @classmethod
    def from_bytes(cls, data: bytes, spec: ModelSpec, where: str) -> Golden:
        """Read an archive that `to_bytes` wrote.

        Raises:
            BundleError: it is not such an archive, or does not fit the spec.
        """
        layout = _one_image(spec)
        one_image = sum(_size(dtype, shape) for dtype, shape in layout.values())
        around = len(cls(*(np.empty(0, dtype) for dtype, _ in layout.values())).to_bytes())
        images, rest = divmod(len(data) - around, one_image)
        if images < 1 or rest:
            raise BundleError(
                f"{where} does not hold golden images of this spec: {len(data):,} bytes fit no number of images.",
                _EXPORT_AGAIN,
            )
        arrays: list[NDArray[Any]] = []
        position = 0
        for name, (dtype, one) in layout.items():
            shape = (images, *one)
            position += len(_LOCAL) + _MEMBER.size + len(_file_name(name)) + len(_npy_header(dtype, shape))
            array = np.frombuffer(data, dtype, math.prod(shape), position).reshape(shape)
            arrays.append(array.copy())  # aligned, and one's own
            position += array.nbytes
        golden = cls(*arrays)
        position = 0
        for piece in golden._pieces():
            # The values are those that were read; their CRC-32 is in what stands between them.
            if isinstance(piece, bytes) and data[position : position + len(piece)] != piece:
                raise BundleError(f"{where} is damaged near byte {position:,}.", _EXPORT_AGAIN)
            position += len(piece)
        golden.check(spec, where)
        return golden

    def _pieces(self) -> Iterator[bytes | memoryview]:
        """The archive: what stands between the values as bytes, the values as they lie in memory."""
        directory, position = [], 0
        for field in fields(self):
            name, array = _file_name(field.name), getattr(self, field.name)
            header, values = _npy_header(array.dtype, array.shape), _flat_bytes(array)
            size = len(header) + len(values)
            crc = zlib.crc32(values.data, zlib.crc32(header))
            # Stored and not deflated: the bytes of a deflated member depend on the zlib at hand.
            member = _MEMBER.pack(20, 0, 0, 0, _DATE, crc, size, size, len(name), 0)
            directory.append(
                _CENTRAL
                + struct.pack("<H", _MADE_BY)
                + member
                + struct.pack("<3H2I", 0, 0, 0, _MODE, position)
                + name
            )
            yield _LOCAL + member + name + header
            yield values.data
            position += len(_LOCAL) + len(member) + len(name) + size
        listed = b"".join(directory)
        count = len(directory)
        yield listed + _END + struct.pack("<4H2IH", 0, 0, count, count, len(listed), position, 0)


def _one_image(spec: ModelSpec) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Name -> type and shape of what a golden image has, in the order of the archive."""
    return {
        "input": (np.dtype("|u1" if spec.input_dtype == "uint8" else "<f4"), spec.input_shape(1)[1:]),
        "logits": (np.dtype("<f4"), (len(spec.classes),)),
        "labels": (np.dtype("<i8"), ()),
        "image_sha256": (np.dtype("<U64"), ()),
    }


def _size(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    return dtype.itemsize * math.prod(shape)


def _file_name(name: str) -> bytes:
    return f"{name}.npy".encode()


def _npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Magic, version 1.0, length and description, which ends on a multiple of 64 bytes."""
    described = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    length = math.ceil((10 + len(described) + 1) / 64) * 64 - 10
    # Room for any number of images, so that the length of the archive determines their number.
    length = max(length, 128 - 10)
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", length) + described.ljust(length - 1) + b"\n"


def _flat_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
