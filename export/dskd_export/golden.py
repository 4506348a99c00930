"""Golden images: real inputs with the logits that the reference gave, to check a device by.

Shape suffixes: B images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dskd_export.errors import BundleError
from dskd_export.spec import ModelSpec

_EXPORT_AGAIN = "Export it again: dskd-compress export"
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say


@dataclass(frozen=True)
class Golden:
    """Real inputs and what the reference made of them.

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
        """Hold types, shapes and ranges against the spec.

        Raises:
            BundleError: names the first array that does not fit.
        """
        images = len(self.labels) if self.labels.ndim else 0
        expected: dict[str, tuple[str, tuple[int, ...]]] = {
            "input": ("|u1" if spec.input_dtype == "uint8" else "<f4", spec.input_shape(images)),
            "logits": ("<f4", (images, len(spec.classes))),
            "labels": ("<i8", (images,)),
            "image_sha256": ("<U64", (images,)),
        }
        for name, (dtype, shape) in expected.items():
            array = getattr(self, name)
            if array.dtype != np.dtype(dtype) or array.shape != shape:
                raise BundleError(
                    f"{where}: {name} is {array.dtype} {list(array.shape)}, "
                    f"the spec asks for {np.dtype(dtype)} {list(shape)}.",
                    _EXPORT_AGAIN,
                )
        if not images:
            raise BundleError(f"{where} holds no images.", _EXPORT_AGAIN)
        if not (np.isfinite(self.input).all() and np.isfinite(self.logits).all()):
            raise BundleError(f"{where} holds NaN or Inf.", _EXPORT_AGAIN)
        if self.labels.min() < 0 or self.labels.max() >= len(spec.classes):
            raise BundleError(f"{where}: a label is not one of {len(spec.classes)} classes.", _EXPORT_AGAIN)

    def to_bytes(self) -> bytes:
        """An `.npz` archive; the same arrays give the same bytes, on any day and machine."""
        buffer = io.BytesIO()
        # Stored and not deflated: the bytes of a deflated member depend on the zlib at hand.
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for field in fields(self):
                member = io.BytesIO()
                array = np.ascontiguousarray(getattr(self, field.name))
                np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
                info = zipfile.ZipInfo(f"{field.name}.npy", _ZIP_DATE)
                info.create_system = 3  # or it would tell on which system it was written
                archive.writestr(info, member.getvalue())
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, spec: ModelSpec, where: str) -> Golden:
        """Read an archive that `to_bytes` wrote; no array can be larger than the archive is.

        Raises:
            BundleError: it is not such an archive, or does not fit the spec.
        """
        names = [field.name for field in fields(cls)]
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                members = archive.infolist()
                if [member.filename for member in members] != [f"{name}.npy" for name in names]:
                    raise ValueError(f"it does not hold exactly {', '.join(names)}")
                if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                    raise ValueError("it is compressed")
                arrays = [_read_array(archive.read(member)) for member in members]
        except (ValueError, zipfile.BadZipFile, EOFError, OSError) as error:
            raise BundleError(f"{where} cannot be read: {error}.", _EXPORT_AGAIN) from error
        golden = cls(*arrays)
        golden.check(spec, where)
        return golden


def _read_array(data: bytes) -> NDArray[Any]:
    """Parse one `.npy`, whose header must not promise more than there is."""
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("an array is not of .npy version 1.0")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    count = 1
    for length in shape:
        count *= length
    if dtype.hasobject or count * dtype.itemsize != len(data) - stream.tell():
        raise ValueError("an array is not as long as its header says")
    array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    return array
