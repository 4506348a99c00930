"""Counting the images that cannot be decoded."""

from __future__ import annotations

from dskd_compress.data.image_set import ImageSet
from dskd_compress.data.streams import StreamSet
from dskd_export.errors import DataError
from dskd_export.runtime.images import (
    UnreadableImage,
    describe_unreadable,
    list_unreadable,
    suggest_tolerance,
)


class Budget:
    """Names every unreadable image once and stops when they are too many."""

    def __init__(
        self, source: str, length: int | None, max_unreadable: float, images: ImageSet | StreamSet | None = None
    ) -> None:
        """Start with none.

        Args:
            length: images of the set; None where it is not known (the fraction is then of those seen).
            max_unreadable: fraction that is tolerated.
            images: where too many are unreadable, the others of this set are found and named too; those of a
                stream are not.
        """
        self.source = source
        self.length = length
        self.max_unreadable = max_unreadable
        self.skipped: list[str] = []
        self._images = images
        self._failures: dict[str, UnreadableImage] = {}

    def known_length(self) -> int:
        """Return the number of images of the set.

        Raises:
            DataError: the source is a stream that does not know it.
        """
        if self.length is None:
            raise DataError(f"{self.source}: the number of images is not known.", "Name the split with its count.")
        return self.length

    def restart(self) -> None:
        """Count anew: a stream has no names by which an image is known again in the next epoch."""
        self._failures = {}

    def add(self, failures: list[UnreadableImage], seen: int = 0) -> None:
        """Count failures.

        Args:
            seen: images tried so far, used where the length is unknown.

        Raises:
            DataError: more than the tolerated fraction is unreadable.
        """
        for failure in failures:
            if failure.name not in self._failures:
                self._failures[failure.name] = failure
                if failure.name not in self.skipped:
                    self.skipped.append(failure.name)
        total = max(self.length if self.length is not None else seen, 1)
        if failures and len(self._failures) > self.max_unreadable * total:
            raise self._explain(total)

    def _explain(self, total: int) -> DataError:
        found, complete = list(self._failures.values()), True
        if self._images is not None and not isinstance(self._images, StreamSet):
            found, complete = list_unreadable(len(self._images), self._images.image, found)
        count = f"{'' if complete else 'at least '}{len(found)} of {total}"
        return DataError(
            f"{self.source}: {count} images cannot be read, more than the {self.max_unreadable:.3g} that "
            f"data.max_unreadable tolerates: {describe_unreadable(found)}.",
            f"Repair or delete them, or leave them out: {suggest_tolerance(len(found), total)}",
        )
