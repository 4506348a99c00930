"""Counting the images that cannot be decoded."""

from __future__ import annotations

from dskd_export.errors import DataError
from dskd_export.runtime.images import UnreadableImage, suggest_tolerance


class Budget:
    """Names every unreadable image once and stops when they are too many."""

    def __init__(self, source: str, length: int | None, max_unreadable: float) -> None:
        """Start with none.

        Args:
            length: images of the set; None where it is not known (the fraction is then of those seen).
            max_unreadable: fraction that is tolerated.
        """
        self.source = source
        self.length = length
        self.max_unreadable = max_unreadable
        self.skipped: list[str] = []
        self._reasons: dict[str, str] = {}

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
        self._reasons = {}

    def add(self, failures: list[UnreadableImage], seen: int = 0) -> None:
        """Count failures.

        Args:
            seen: images tried so far, used where the length is unknown.

        Raises:
            DataError: more than the tolerated fraction is unreadable.
        """
        for failure in failures:
            if failure.name not in self._reasons:
                self._reasons[failure.name] = failure.reason
                if failure.name not in self.skipped:
                    self.skipped.append(failure.name)
        total = max(self.length if self.length is not None else seen, 1)
        if failures and len(self._reasons) > self.max_unreadable * total:
            shown = "; ".join(f"{name} ({self._reasons[name]})" for name in list(self._reasons)[:3])
            raise DataError(
                f"{self.source}: {len(self._reasons)} of {total} images cannot be read, more than the "
                f"{self.max_unreadable:.3g} that data.max_unreadable tolerates: {shown}"
                f"{'; ...' if len(self._reasons) > 3 else ''}.",
                f"Repair or delete them, or leave them out: {suggest_tolerance(len(self._reasons), total)}",
            )
