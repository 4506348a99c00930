"""Collect TensorRT's messages, and tell what an error means."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from dskd_export.engine.api import Failure

# Start of the list of layers that TensorRT logs with detailed profiling names.
_LAYERS = "Layers:\n"
_PEAK = re.compile(r"Peak memory usage of TRT CPU/GPU memory allocators: CPU \d+ MiB, GPU (\d+) MiB")
_PLACE = re.compile(r"\s*(In \w+ at /_src/[^)\s]*|\[\w+\.(cpp|h):\d+: \w+\]|\[\w+\.(cpp|h)::\w+::\d+\])")
_WORDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("library", re.compile(r"unable to load library|cannot open shared object|no lean runtime", re.I)),
    ("profile", re.compile(r"no optimization profile|profile.*(missing|not.*(defined|specified|set))", re.I)),
    (
        "workspace",
        re.compile(r"within workspace limit|insufficient workspace|increase the allowed workspace", re.I),
    ),
    ("memory", re.compile(r"out of memory|outofmemory|memory allocation|bad_alloc|insufficient memory", re.I)),
)


@dataclass
class Log:
    """Messages of one build or load.

    Attributes:
        errors: in order.
        warnings: in order.
        layers: the last list of layers.
        gpu_peak_mb: the largest one logged, 1 MB = 10^6 bytes.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    layers: str = ""
    gpu_peak_mb: float | None = None

    def add(self, severity: str, message: str) -> None:
        """Add a message; `severity` is TensorRT's name for it."""
        if severity in ("ERROR", "INTERNAL_ERROR"):
            self.errors.append(message)
        elif severity == "WARNING":
            self.warnings.append(message)
        elif message.startswith(_LAYERS):
            self.layers = message
        elif found := _PEAK.search(message):
            peak = int(found[1]) * 1024**2 / 1e6
            # Without a GPU it counts zero: that is no measurement.
            self.gpu_peak_mb = max(self.gpu_peak_mb or 0.0, peak) or None

    def failure(self) -> Failure:
        """Classify the errors: the first that is understood, or the first one."""
        for kind, words in _WORDS:
            for message in self.errors:
                if words.search(message):
                    return Failure(kind, join_lines(message))  # type: ignore[arg-type]
        said = join_lines(self.errors[0]) if self.errors else "it gave no reason"
        return Failure("other", said)

    def unique_warnings(self) -> tuple[str, ...]:
        """List each warning once, in order."""
        return tuple(dict.fromkeys(join_lines(message) for message in self.warnings))


def join_lines(message: str) -> str:
    """Remove line breaks and TensorRT's source locations from a message."""
    return re.sub(r"\s+", " ", _PLACE.sub("", message)).strip()


def join_messages(messages: Iterable[str]) -> str:
    """Join several messages into one text."""
    return "; ".join(join_lines(message) for message in messages) or "it gave no reason"
