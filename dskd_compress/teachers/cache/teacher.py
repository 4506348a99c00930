"""A teacher that reads the cache first.

Shape suffixes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dskd_compress.methods.base import Position, Teacher, TeacherOutput
from dskd_compress.teachers.cache.key import list_output_tensors, round_to_stored
from dskd_compress.teachers.cache.rows import RowStore
from dskd_export.errors import DataError, ModelError

# Largest difference of a batch from the cache and the same batch computed, relative to the largest value. Rounding
# stays below it; another image or teacher does not.
_MAX_ERROR = {"fp32": 0.01, "bf16": 0.05, "fp16": 0.05}

Keys = Callable[[int, int], "NDArray[np.int64] | None"]
"""(epoch, batch) -> (view, index) of the images of the whole batch, int64 [B, 2]."""


class CachedTeacher(Teacher):
    """A frozen teacher whose outputs for training batches are cached.

    A batch with one missing image is computed whole, as kernels round other batch shapes differently. Computed
    outputs are rounded as stored ones, so the student does not depend on which run filled the cache. The first
    batch that is read is also computed and compared: a cache of other outputs ends the run.

    Attributes:
        read, computed: images so far.
        error: largest difference of that first batch, relative to the largest value; None before it.
    """

    def __init__(
        self,
        teacher: Teacher,
        stores: Mapping[str, RowStore],
        keys: Keys,
        *,
        images: int,
        precision: str = "fp32",
    ) -> None:
        """Wrap a teacher; `stores`: field of `TeacherOutput` -> its rows, view by view, `images` in each."""
        super().__init__(teacher.model, teacher.adapt, teacher.tap, teacher.head)
        self.stores = dict(stores)
        self.keys, self.images = keys, images
        self.precision = precision
        self.read = self.computed = 0
        self.error: float | None = None

    @torch.no_grad()
    def at(
        self, images_BCHW: Tensor, position: Position | None, rows: Sequence[int] | None = None
    ) -> TeacherOutput:
        """Read the output for images of a training step, or compute and store it; see `Teacher.at`.

        Raises:
            DataError: the cache holds the outputs of another teacher or image.
            ModelError: a feature is too large for float16.
        """
        if position is None:
            return super().at(images_BCHW, position, rows)
        rows_B = self._find_rows(position, rows)
        if len(rows_B) != len(images_BCHW):
            raise AssertionError(f"batch {position} has {len(rows_B)} keys and {len(images_BCHW)} images")
        found = self._read_rows(rows_B, images_BCHW)
        if found is None:
            self.computed += len(rows_B)
            return self._compute(rows_B, images_BCHW)
        self.read += len(rows_B)
        if self.error is None:
            self.error = self._compare(found, self(images_BCHW))
        return found

    def _find_rows(self, position: Position, places: Sequence[int] | None) -> NDArray[np.int64]:
        """Find the rows of the stores that hold the images of a step."""
        keys_B2 = self.keys(*position)
        if keys_B2 is None:
            raise AssertionError("images without a key cannot be cached")
        if places is not None:
            keys_B2 = keys_B2[list(places)]
        rows_B: NDArray[np.int64] = keys_B2[:, 0] * self.images + keys_B2[:, 1]
        views = min(len(store) for store in self.stores.values()) // self.images
        if not ((keys_B2 >= 0) & (keys_B2 < (views, self.images))).all():
            raise AssertionError(f"a key of batch {position} is outside {views} views of {self.images} images")
        return rows_B

    def _read_rows(self, rows_B: NDArray[np.int64], images_BCHW: Tensor) -> TeacherOutput | None:
        if not all(store.has_rows(rows_B) for store in self.stores.values()):
            return None
        fields: dict[str, Any] = {}
        for name, store in self.stores.items():
            values = store.read(rows_B)
            if values is None:
                return None
            value = torch.from_numpy(values).to(images_BCHW.device, non_blocking=True).float()
            fields[name] = self._restore_layout(value, images_BCHW)
        return TeacherOutput(**fields)

    def _restore_layout(self, value: Tensor, images_BCHW: Tensor) -> Tensor:
        """Restore the memory layout of the model's output: kernels round by layout."""
        if value.ndim != 4:
            return value
        tokens = self.tap is not None and self.tap.layout in ("NHWC", "tokens")
        last = tokens or images_BCHW.is_contiguous(memory_format=torch.channels_last)
        return value.contiguous(memory_format=torch.channels_last) if last else value

    def _compute(self, rows_B: NDArray[np.int64], images_BCHW: Tensor) -> TeacherOutput:
        fields: dict[str, Any] = {}
        for name, value in list_output_tensors(self(images_BCHW)).items():
            store = self.stores[name]
            stored = round_to_stored(value, store.dtype.name)
            values = stored.contiguous().cpu().numpy()
            if not np.isfinite(values).all():
                raise ModelError(
                    f"The teacher's {name} reaches {float(value.abs().max()):g}, "
                    f"which {store.dtype.name} cannot hold.",
                    "--set teacher.cache.features=float32",
                )
            store.write(rows_B, values)
            fields[name] = stored.float()
        return TeacherOutput(**fields)

    def _compare(self, found: TeacherOutput, computed: TeacherOutput) -> float:
        worst = 0.0
        expected = list_output_tensors(computed)
        for name, value in list_output_tensors(found).items():
            scale = float(expected[name].abs().max())
            error = float((value - expected[name]).abs().max()) / max(scale, 1e-12)
            if not error <= _MAX_ERROR[self.precision]:
                raise DataError(
                    f"{self.stores[name].folder} holds other outputs than the teacher's: {name} differs by "
                    f"{error:.1%} of the largest value.",
                    "Delete the folder; it is filled again.",
                )
            worst = max(worst, error)
        return worst
