"""Time every model of a bundle on this device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dskd_export.benchmark.cells import Cell, Effort, thread_counts
from dskd_export.benchmark.engine_cells import engine_cells
from dskd_export.benchmark.plan import Work, do_work
from dskd_export.benchmark.scenarios import Load
from dskd_export.benchmark.store import CellStore
from dskd_export.bundle import Bundle
from dskd_export.documents.benchmark import BenchmarkDocument
from dskd_export.engine.found import FoundEngine
from dskd_export.provenance import Stopwatch
from dskd_export.runtime.labelled_images import LabelledImages
from dskd_export.runtime.loader import OnnxLoader
from dskd_export.validation.candidates import engines_for, in_order, named_providers

# Without images at hand: as large as a photo of ImageNet is on average, which is what resizing depends on.
SYNTHETIC_SIZE = (500, 375)


@dataclass(frozen=True)
class Settings:
    """What is timed.

    Attributes:
        runners: `onnxruntime`, `tensorrt`; of the latter alone, an engine that can be run has to be there.
        engines: folder of the bundle's engines.
        precisions: None: all that the bundle holds; one that a provider cannot compute stays empty.
        providers: `auto`, `cpu`, `cuda`, `tensorrt`.
        batches: images of a call.
        threads: of the CPU, each count timed by itself; None: all cores.
        streams: calls of an engine that are under way at once.
        allow_cpu: operators that may run on the CPU under another provider.
        cross_check: TensorRT's own tool times the engines as well.
        effort: how long each cell is timed.
        load: scenarios.
        seed: for the record, and of made-up images.
        recipe_sha256: for the record.
    """

    runners: Sequence[str]
    engines: Path
    precisions: Sequence[str] | None
    providers: Sequence[str]
    batches: Sequence[int]
    threads: Sequence[int] | None
    streams: Sequence[int]
    allow_cpu: Sequence[str]
    cross_check: bool
    effort: Effort
    load: Load
    seed: int
    recipe_sha256: str


def work_of(bundle: Bundle, settings: Settings) -> Work:
    """What is measured of a bundle.

    Raises:
        EnvironmentProblem: a provider or a precision that was asked for cannot be run here.
        UsageError: the bundle does not hold a precision that was asked for.
    """
    found = engines_of(bundle, settings)
    return Work(
        cells_of=lambda batches: cells_of(bundle, settings, found, batches),
        batches=settings.batches,
        effort=settings.effort,
        load=settings.load,
        engines=found,
        cross_check=settings.cross_check,
        spec=bundle.spec,
    )


def benchmark_bundle(
    bundle: Bundle,
    settings: Settings,
    work: Work,
    images: LabelledImages | None,
    store: CellStore | None,
    on_step: Callable[[], object],
    before: Callable[[str], object],
) -> tuple[BenchmarkDocument, dict[str, NDArray[np.float64]]]:
    """Time a bundle; nothing is written but by the store, and nothing is judged.

    Args:
        bundle: the models.
        settings: what of them, and how long.
        work: as `work_of` gives it.
        images: to feed; None: images of noise.
        store: keeps cells that are done.
        on_step: told once a row or a scenario is there.
        before: told what comes next, in words.

    Returns:
        The document, and the raw samples in seconds.

    Raises:
        DataError: the images cannot be read.
        EnvironmentProblem: a provider or a precision that was asked for cannot be run here.
        MissingExtra: ONNX Runtime is not installed.
    """
    watch = Stopwatch()
    fed, said = _images(images, work.most_images, settings.seed)
    done = do_work(work, fed, store, on_step, before)
    provenance = watch.provenance(seed=settings.seed, device=done.device, recipe_sha256=settings.recipe_sha256)
    document = BenchmarkDocument(
        rows=done.rows,
        scenarios=done.scenarios,
        cross_checks=done.cross_checks,
        images=said,
        bundle_sha256=bundle.sha256,
        provenance=provenance,
    )
    return document, done.samples


def engines_of(bundle: Bundle, settings: Settings) -> list[FoundEngine]:
    """The engines that are timed, and those that cannot be.

    Raises:
        EnvironmentProblem: nothing but engines was asked for, and none can be run here.
    """
    if "tensorrt" not in settings.runners:
        return []
    return engines_for(settings.engines, bundle, settings.precisions, settings.runners)


def cells_of(
    bundle: Bundle, settings: Settings, found: Sequence[FoundEngine], batches: Sequence[int]
) -> list[Cell]:
    """Precisions x providers x batches x threads in ONNX Runtime, then the engines; what cannot be timed says why.

    Raises:
        UsageError: the bundle does not hold a precision that was asked for.
    """

    precisions = list(settings.precisions or in_order(bundle.precisions))
    for precision in precisions:
        bundle.model_path(precision)  # one that is not there is told before anything is timed
    cells = [
        Cell(
            role="student",
            runner="onnxruntime",
            provider=provider,
            precision=precision,
            batch=batch,
            spec=bundle.spec,
            open=OnnxLoader(
                partial(bundle.model, precision),
                bundle.spec,
                provider,
                precision,
                threads,
                settings.allow_cpu,
                [batch],
            ),
            required=settings.precisions is not None,
            size_mb=bundle.model_mb(precision),
            threads=threads,
        )
        for precision in (precisions if "onnxruntime" in settings.runners else ())
        for provider in named_providers(settings.providers)
        for batch in batches
        for threads in thread_counts(settings.threads, provider)
    ]
    return [*cells, *engine_cells(found, batches, settings.streams, bundle.spec)]


def _images(images: LabelledImages | None, count: int, seed: int) -> tuple[list[Image.Image], str]:
    if images is not None:
        # All must be readable: a cell that is fed other images than it says measures something else.
        return [image for image, _ in islice(images.read([], None), count)], f"of {images.folder}"
    return synthetic_images(seed)


def synthetic_images(seed: int) -> tuple[list[Image.Image], str]:
    """An image of noise, and what it is, in words."""
    width, height = SYNTHETIC_SIZE
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return [Image.fromarray(pixels)], f"noise of {width}x{height} pixels; there were no images (--images)"
