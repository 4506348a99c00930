"""Data sets that can only be read from the front: wds/, tfds/ and hfids/ of timm."""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl

from PIL import Image

from dskd_compress.data.folders import VAL_NAMES
from dskd_compress.timm_import import import_timm
from dskd_export.errors import DataError, EnvironmentProblem
from dskd_export.runtime.images import to_rgb
from dskd_export.spec import ExifMode

# The pip package behind each prefix of timm's reader strings.
READER_PACKAGES = {
    "hfds": ("datasets", "datasets"),
    "hfids": ("datasets", "datasets"),
    "tfds": ("tensorflow_datasets", "tensorflow-datasets tensorflow-cpu"),
    "wds": ("webdataset", "webdataset"),
}
CLASS_FILE = "classnames.txt"


@dataclass(frozen=True)
class StreamSet:
    """Labelled images in the order in which a timm reader gives them.

    In training the reader shuffles with its own buffer and each worker reads its share of the
    shards. So the order depends on the number of workers, unlike that of an `ImageSet`, and going
    on within an epoch reads and drops what was seen.
    """

    source: str
    split: str
    classes: tuple[str, ...]
    length: int | None
    exif: ExifMode = "ignore"

    def __len__(self) -> int:
        """Number of images.

        Raises:
            DataError: the reader does not know.
        """
        if self.length is None:
            raise DataError(
                f"{self.source}: the number of images in '{self.split}' is not known.",
                "Name the split with its count, for example data.val_split='val-{0000..0003}.tar|5000'.",
            )
        return self.length

    def name(self, index: int) -> str:
        """Position in the stream, for messages; streams have no file names."""
        return f"{self.split}, image {index} of the stream"

    def reader(self, *, training: bool, batch_size: int = 1, seed: int = 0) -> Any:
        """Return timm's `IterableImageDataset` for this split.

        Args:
            training: shuffle, and repeat up to whole batches in every worker.
        """
        return create_reader(self.source, self.split, training=training, batch_size=batch_size, seed=seed)

    def __iter__(self) -> Iterator[tuple[Image.Image, int]]:
        """Yield (RGB image, label) in the stored order.

        Raises:
            UnreadableImage: as `to_rgb`; what cannot be decoded at all is left out by the reader.
        """
        for position, (image, label) in enumerate(self.reader(training=False)):
            yield self.to_rgb(image, position), int(label)

    def to_rgb(self, image: Image.Image, position: int) -> Image.Image:
        """Return what the reader gave as RGB, upright where EXIF is applied.

        Raises:
            UnreadableImage: as `to_rgb` of `dskd_export.runtime.images`.
        """
        return to_rgb(image, f"{self.source}, {self.name(position)}", exif=self.exif)


def parse_hf_source(source: str) -> tuple[str, dict[str, str]]:
    """Split `hfds/NAME?image=COLUMN&label=COLUMN` into the name and the columns that it names.

    Raises:
        DataError: something else is named.
    """
    name, _, query = source.partition("?")
    columns = dict(parse_qsl(query))
    if unknown := set(columns) - {"image", "label"}:
        raise DataError(
            f"{source}: unknown '{sorted(unknown)[0]}'.", "Only image=COLUMN and label=COLUMN are known."
        )
    return name, columns


def open_streams(
    source: str, train_split: str, val_split: str | None, exif: ExifMode = "ignore"
) -> tuple[StreamSet, StreamSet]:
    """Open a source of timm's iterable readers.

    Args:
        source: `wds/FOLDER_OR_URL`, `tfds/NAME` or `hfids/NAME`, which may name its columns:
            `hfids/NAME?image=img&label=fine_label`.
        train_split: name of the split; for wds also shards and count, `train-{000..009}.tar|50000`, for
            hfids also with the count, `train|50000`, which most data there do not tell in advance.
        val_split: the same for validation; None: val, validation or test, whichever the reader lists.
        exif: apply: images are turned upright by their EXIF.

    Raises:
        EnvironmentProblem: the library behind the reader is not installed; the pip package is named.
        DataError: no such data, no such split, no classes, or EXIF to apply that the reader does not hand on.
    """
    prefix, _, rest = source.partition("/")
    if prefix == "tfds" and exif == "apply":
        raise DataError(
            f"data.exif: tfds/ decodes the images of {source} itself and drops their EXIF.",
            "--set data.exif=ignore",
        )
    require_reader(prefix)
    if prefix == "wds":
        _refuse_commands(rest)
    train = create_reader(source, train_split, training=False)
    listed = _list_splits(source, train.reader)
    val_name = val_split or next((name for name in VAL_NAMES if name in listed), None)
    if val_name is None:
        raise DataError(
            f"{source} lists no validation split ({', '.join(listed) or 'it lists none'}).",
            "Name one with data.val_split; a stream cannot be split by a seed.",
        )
    val = create_reader(source, val_name, training=False)
    classes = _classes(source, train.reader)
    return (
        StreamSet(source, train_split, classes, len(train) or None, exif),
        StreamSet(source, val_name, classes, len(val) or None, exif),
    )


def require_reader(prefix: str) -> ModuleType:
    """Import the library behind a prefix.

    Raises:
        EnvironmentProblem: it is not installed; the pip package is named.
    """
    module, package = READER_PACKAGES[prefix]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise EnvironmentProblem(
            f"A data.source of {prefix}/... needs {module}, which cannot be imported ({error}).",
            f"Install it with: pip install {package}",
        ) from error


def create_reader(source: str, split: str, *, training: bool, batch_size: int = 1, seed: int = 0) -> Any:
    """Call timm's `create_dataset` for an iterable source.

    Raises:
        DataError: timm or the library behind it refuses; the message is theirs.
    """
    import_timm()
    from timm.data import create_dataset

    prefix, _, rest = source.partition("/")
    options: dict[str, Any] = {"split": split}
    if prefix != "tfds":
        options["input_img_mode"] = ""  # as stored: `to_rgb` is what converts
    if prefix == "hfids":
        source_name, columns = parse_hf_source(source)
        options |= _split_and_count(split)
        options |= {"input_key": columns.get("image"), "target_key": columns.get("label")}
    else:
        source_name = "wds/" if prefix == "wds" else source
    try:
        dataset = create_dataset(
            source_name,
            root=rest if prefix == "wds" else None,
            **options,
            is_training=training,
            batch_size=batch_size,
            seed=seed,
            # hfids streams; tfds reads prepared files only and would stop where they are missing.
            download=prefix == "tfds",
        )
    except Exception as error:  # the libraries raise what they like; all of it is about this source
        if "length is unknown" in str(error):
            raise DataError(
                f"{source}: the data do not tell how many images '{split}' has.",
                f"Name every split with its count, for example data.train_split='{split}|50000'.",
            ) from error
        raise DataError(
            f"{source}, split '{split}': {type(error).__name__}: {error}",
            "Correct data.source, data.train_split or data.val_split.",
        ) from error
    if prefix == "wds":
        for name in dataset.reader.split_info.filenames:
            _refuse_commands(name)
    return dataset


def count_shards(dataset: Any) -> int | None:
    """Count the shard files where the reader has them; more workers than that would idle."""
    files = getattr(getattr(dataset.reader, "split_info", None), "filenames", None)
    if files is not None:  # wds
        return len(files)
    return getattr(_hf_stream(dataset.reader), "num_shards", None)


def _hf_stream(reader: Any) -> Any:
    """The streaming data set that timm's reader will read; None for other readers."""
    if not hasattr(reader, "builder") or not hasattr(reader.builder, "as_streaming_dataset"):
        return None
    return reader.builder.as_streaming_dataset(split=reader.split)


def _split_and_count(split: str) -> dict[str, Any]:
    name, _, count = split.partition("|")
    if count and not count.isdigit():
        raise DataError(
            f"The split '{split}': '{count}' is no number.", "Write NAME|COUNT, for example train|50000."
        )
    return {"split": name, "num_samples": int(count) if count else None}


class ReaderWarnings(logging.Handler):
    """Collects what timm's readers only log when they drop an image."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.reasons: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message."""
        self.reasons.append(record.getMessage())

    def __enter__(self) -> ReaderWarnings:
        logger = logging.getLogger("timm.data.readers")
        logger.addHandler(self)
        self._propagated, logger.propagate = logger.propagate, False
        return self

    def __exit__(self, *_: object) -> None:
        logger = logging.getLogger("timm.data.readers")
        logger.removeHandler(self)
        logger.propagate = self._propagated

    def drain(self) -> list[str]:
        """Return the messages since the last call."""
        reasons, self.reasons = self.reasons, []
        return reasons


def _refuse_commands(address: str) -> None:
    """Refuse what webdataset would hand to a shell: `pipe:` addresses and quoting tricks in URLs."""
    if not address or address.startswith("pipe:") or re.search(r"[`$;|&<>'\"\\\n\s]", address):
        raise DataError(
            f"wds/{address}: not a folder or URL that is safe to open.",
            "Name a folder or an https address without spaces, quotes and shell characters.",
        )


def _list_splits(source: str, reader: Any) -> list[str]:
    info = getattr(reader, "info", None)
    if isinstance(info, dict):  # wds
        return list(info.get("splits", {}))
    if source.startswith("hfids/"):
        names = require_reader("hfids").get_dataset_split_names(parse_hf_source(source)[0].partition("/")[2])
        return [str(name) for name in names]
    return list(getattr(getattr(getattr(reader, "builder", None), "info", None), "splits", None) or {})


def _classes(source: str, reader: Any) -> tuple[str, ...]:
    if reader.class_to_idx:
        by_index = {index: name for name, index in reader.class_to_idx.items()}
        return tuple(by_index[index] for index in sorted(by_index))
    features = getattr(_hf_stream(reader), "features", None) or {}
    if names := getattr(features.get(getattr(reader, "target_key", "label")), "names", None):
        return tuple(names)  # data without a card: timm looks before the files have been looked at
    prefix, _, root = source.partition("/")
    if prefix == "wds":
        try:
            with require_reader("wds").gopen(f"{root}/{CLASS_FILE}") as file:
                text = file.read().decode("utf-8")
        except OSError as error:
            raise DataError(
                f"{source}: shards hold class numbers only, and {CLASS_FILE} cannot be read ({error}).",
                f"Put a {CLASS_FILE} next to the shards: one class name a line, in the order of the numbers.",
            ) from error
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    raise DataError(f"{source}: the label column names no classes.", "Use a source whose labels are class labels.")
