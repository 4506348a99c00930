"""The Runner protocol: all that comparing, timing and evaluating know of a model."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


class Runner(Protocol):
    """A model that is ready to be called. Use it as a context manager; it is closed on exit."""

    @property
    def name(self) -> str:
        """What executes the model and where, for example `onnxruntime:cpu:fp32`."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a reader of a number must know: versions, provider, threads, precision."""
        ...

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch: input name -> array in, output name -> array out. Blocks until done."""
        ...

    def __enter__(self) -> Runner: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
