"""The images of a validation, in lots: as timm prepares them and as the device does.

Each image is decoded once. A lot is prepared while the runners are busy with the one before.
Shape suffixes: B images of a lot, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dskd_compress.data import Preprocessing, eval_transform
from dskd_export.runtime.images import pixel_sha256
from dskd_export.runtime.preprocess import model_input, preprocess_batch
from dskd_export.runtime.runner import Array
from dskd_export.spec import ModelSpec

Item = TypeVar("Item")


@dataclass(frozen=True)
class Lot:
    """Some images of the validation set.

    Attributes:
        labels: int64 [B].
        of_timm: float32 [B, C, H, W], by timm's evaluation transform with the student's own settings.
        of_device: what the bundle's spec makes of the same images.
        timm_input: the first in the type and layout of the model's input.
        device_input: the second, as the device feeds it.
        differs: bool [B], images whose two inputs are not equal bit by bit.
        sha256: of each image's pixels, as the golden images are named.
        teacher_input: float32 [B, C, H', W'], as the teacher wants them; None: it is not asked.
    """

    labels: NDArray[np.int64]
    of_timm: NDArray[np.float32]
    of_device: NDArray[np.float32]
    timm_input: Array
    device_input: Array
    differs: NDArray[np.bool_]
    sha256: tuple[str, ...]
    teacher_input: NDArray[np.float32] | None = None


def lots_of(
    images: Iterator[tuple[Image.Image, int, str]],
    preprocessing: Preprocessing,
    spec: ModelSpec,
    size: int,
    of_teacher: Preprocessing | None = None,
) -> Iterator[Lot]:
    """Prepare images, `size` at a time, the last lot with what is left.

    Args:
        images: decoded image, label and name.
        preprocessing: of the student.
        spec: of its bundle.
        size: images of a lot.
        of_teacher: how the teacher wants them; None: it is not asked.
    """
    to_uint8 = eval_transform(preprocessing, normalise=False)
    for_teacher = None if of_teacher is None or of_teacher == preprocessing else _transform(of_teacher)
    own = spec.model_copy(update={"mean": preprocessing.mean, "std": preprocessing.std})
    is_plain = (spec.input_dtype, spec.input_layout) == ("float32", "NCHW")
    while chunk := list(islice(images, size)):
        pixels_BCHW = np.stack([np.asarray(to_uint8(image)) for image, _, _ in chunk])
        of_timm = timm_input = normalised(pixels_BCHW, preprocessing.mean, preprocessing.std)
        device_input = preprocess_batch([image for image, _, _ in chunk], spec)
        if not is_plain:  # the model normalises bytes, or takes another layout
            timm_input = np.stack([model_input(pixels_CHW.transpose(1, 2, 0), own) for pixels_CHW in pixels_BCHW])
        of_device = as_plain(device_input, spec)
        teacher_input = None
        if of_teacher is not None:
            # Both often want the same input, which is then made once.
            teacher_input = of_timm if for_teacher is None else for_teacher([image for image, _, _ in chunk])
        differs = [not np.array_equal(a, b) for a, b in zip(of_timm, of_device, strict=True)]
        yield Lot(
            labels=np.array([label for _, label, _ in chunk], dtype=np.int64),
            of_timm=of_timm,
            of_device=of_device,
            timm_input=timm_input,
            device_input=device_input,
            differs=np.array(differs),
            sha256=tuple(pixel_sha256(image) for image, _, _ in chunk),
            teacher_input=teacher_input,
        )


def _transform(preprocessing: Preprocessing) -> Callable[[Sequence[Image.Image]], NDArray[np.float32]]:
    """timm's evaluation transform of a model, images to float32 [B, C, H, W]."""
    to_uint8 = eval_transform(preprocessing, normalise=False)

    def apply(images: Sequence[Image.Image]) -> NDArray[np.float32]:
        pixels_BCHW = np.stack([np.asarray(to_uint8(image)) for image in images])
        return normalised(pixels_BCHW, preprocessing.mean, preprocessing.std)

    return apply


def normalised(pixels_BCHW: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """What timm's transform makes of its own pixels, bit by bit.

    Without torch: in another thread than its models it would start a second team of threads.
    """
    value_BCHW = pixels_BCHW.astype(np.float32)
    value_BCHW /= np.float32(255)
    value_BCHW -= np.array(mean, dtype=np.float32)[:, None, None]
    value_BCHW /= np.array(std, dtype=np.float32)[:, None, None]
    return value_BCHW


def as_plain(device_input: Array, spec: ModelSpec) -> NDArray[np.float32]:
    """The input of a model of any type and layout as float32 [B, C, H, W], normalised as the spec says."""
    input_BCHW = device_input.transpose(0, 3, 1, 2) if spec.input_layout == "NHWC" else device_input
    if spec.input_dtype == "uint8":
        return normalised(input_BCHW.astype(np.uint8, copy=False), spec.mean, spec.std)
    return input_BCHW.astype(np.float32, copy=False)


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, the next one always under way in another thread. At most two are there at a time."""
    end = object()
    step: Callable[[], object] = lambda: next(items, end)  # noqa: E731
    with ThreadPoolExecutor(1, thread_name_prefix="images") as pool:
        coming = pool.submit(step)
        while (item := coming.result()) is not end:
            coming = pool.submit(step)
            yield item  # type: ignore[misc]
