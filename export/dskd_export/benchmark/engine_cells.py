"""What is timed of a bundle's TensorRT engines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from dskd_export.benchmark.cells import Cell
from dskd_export.engine.found import FoundEngine
from dskd_export.runtime.loader import EngineLoader
from dskd_export.spec import ModelSpec


def engine_cells(
    found: Sequence[FoundEngine], batches: Sequence[int], streams: Sequence[int], spec: ModelSpec
) -> Iterator[Cell]:
    """Engines x batches x streams, in this order; one that cannot be timed says why.

    Args:
        found: as `find_engines` gives it.
        batches: images of a call.
        streams: calls that are under way at once.
        spec: of the bundle.
    """
    for engine in found:
        for batch, calls in product(batches, streams):
            why = engine.problem
            if not why and not engine.document.takes(batch):
                why = f"the engine takes batches of {engine.document.batches}; build it with --batch {batch}"
            yield Cell(
                role="student",
                runner="tensorrt",
                provider="cuda",
                precision=engine.precision,
                batch=batch,
                spec=spec,
                open=EngineLoader(engine.path, engine.precision, calls),
                streams=calls,
                size_mb=engine.size_mb,
                unavailable=why,
            )
