"""Hugging Face data sets with random access, through timm's reader."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from dskd_compress.data.folders import find_val_split
from dskd_compress.data.image_set import LabelledSet, StoredSet
from dskd_compress.data.streams import parse_hf_source, require_reader
from dskd_compress.timm_import import import_timm
from dskd_export.errors import DataError
from dskd_export.runtime.images import convert_image_errors, open_image
from dskd_export.runtime.orientation import read_stored_orientation


class HfdsSet(LabelledSet):
    """One split of a Hugging Face data set."""

    def __init__(self, source: str, split: str) -> None:
        """Open a split with timm's `hfds` reader.

        Args:
            source: `hfds/NAME`; other columns than `image` and `label` are named as
                `hfds/NAME?image=img&label=fine_label`.
            split: name of the split.

        Raises:
            DataError: no such data set, split or column, or labels that are no class labels.
        """
        import_timm()
        from timm.data import create_dataset

        name, columns = parse_hf_source(source)
        try:
            dataset = create_dataset(
                name, split=split, input_key=columns.get("image"), target_key=columns.get("label")
            )
        except Exception as error:  # the library raises what it likes; all of it is about this source
            raise _refusal(source, split, error) from error
        self.split = split
        self.reader: Any = dataset.reader
        by_index = {index: name for name, index in self.reader.class_to_idx.items()}
        self.classes = tuple(by_index[index] for index in sorted(by_index))
        column, image_column = columns.get("label", "label"), columns.get("image", "image")
        others = [name for name in self.reader.dataset.column_names if name != image_column]
        # timm declares the column to be one of images, which makes an empty one where there was none.
        if self.reader.dataset.data.column(image_column).null_count == len(self.reader.dataset):
            raise DataError(
                f"{source} has no images in a column '{image_column}'. It has: {', '.join(others)}.",
                "Name the columns: hfds/NAME?image=img&label=fine_label",
            )
        if not self.classes:
            raise DataError(
                f"{source}: column '{column}' is no class label.",
                "Name the columns: hfds/NAME?image=img&label=fine_label",
            )
        labels = np.asarray(self.reader.dataset.with_format("numpy")[column][:])
        if len(labels) and (not np.issubdtype(labels.dtype, np.integer) or int(labels.min()) < 0):
            raise DataError(f"{source}: split '{split}' has images without labels.", "Name another split.")
        self.labels = labels.astype(np.int64)

    def image(self, index: int) -> Image.Image:
        """Image `index`, RGB."""
        name = self.name(index)
        with convert_image_errors(name):
            return open_image(self.content(index), name)

    def has_metadata(self) -> bool:
        """Encoded images may have EXIF."""
        return True

    def orientation(self, index: int) -> int:
        """Orientation in the image's headers."""
        return read_stored_orientation(io.BytesIO(self.content(index)))

    def name(self, index: int) -> str:
        """Split and row."""
        return f"{self.split}/{index}"

    def stored_bytes(self, index: int) -> None:
        """Not known without reading the row."""
        return

    def content(self, index: int) -> bytes:
        """The encoded image."""
        with self.reader[index][0] as stream:
            return bytes(stream.read())


def open_hfds(source: str, train_split: str, val_split: str | None) -> tuple[StoredSet, StoredSet | None]:
    """Open a Hugging Face data set; the second set is None where it has to be split off.

    Raises:
        EnvironmentProblem: `datasets` is not installed.
        DataError: as `HfdsSet`, or a split that is not there.
    """
    datasets = require_reader("hfds")
    name, _ = parse_hf_source(source)
    try:
        splits = [str(split) for split in datasets.get_dataset_split_names(name.partition("/")[2])]
    except Exception as error:  # as above
        raise _refusal(source, train_split, error) from error
    there = f"It has: {', '.join(splits)}."
    if train_split not in splits:
        raise DataError(f"{source} has no split '{train_split}'. {there}", "Correct data.train_split.")
    val = find_val_split(splits, val_split, source, there)
    return HfdsSet(source, train_split), None if val is None else HfdsSet(source, val)


def _refusal(source: str, split: str, error: Exception) -> DataError:
    first = str(error).splitlines()[0] if str(error) else ""
    return DataError(
        f"{source}, split '{split}': {type(error).__name__}: {first}",
        "Correct data.source; other columns than image and label: hfds/NAME?image=img&label=fine_label",
    )
