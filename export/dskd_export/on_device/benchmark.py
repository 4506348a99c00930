"""Time every model of a bundle on this device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dskd_export.benchmark_document import BenchmarkDocument
from dskd_export.benchmarking import Cell, Effort, time_cells
from dskd_export.bundle import Bundle
from dskd_export.cross_check import cross_checks, find_tools
from dskd_export.engine.found import FoundEngine
from dskd_export.engine_cells import engine_cells
from dskd_export.on_device.images import LabelledImages
from dskd_export.provenance import Stopwatch
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner
from dskd_export.validation.contest import engines_for, in_order, named_providers, profile_shapes

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
        threads: of the CPU; None: all cores.
        allow_cpu: operators that may run on the CPU under another provider.
        cross_check: TensorRT's own tool times the engines as well.
        effort: how long each cell is timed.
        seed: for the record, and of made-up images.
        recipe_sha256: for the record.
    """

    runners: Sequence[str]
    engines: Path
    precisions: Sequence[str] | None
    providers: Sequence[str]
    batches: Sequence[int]
    threads: int | None
    allow_cpu: Sequence[str]
    cross_check: bool
    effort: Effort
    seed: int
    recipe_sha256: str


def benchmark_bundle(
    bundle: Bundle,
    settings: Settings,
    images: LabelledImages | None,
    on_part: Callable[[Cell], object],
    before: Callable[[str], object],
) -> tuple[BenchmarkDocument, dict[str, NDArray[np.float64]]]:
    """Time a bundle; nothing is written.

    Args:
        bundle: the models.
        settings: what of them, and how long.
        images: to feed; None: images of noise.
        on_part: told once a row is there.
        before: told what comes next, in words.

    Returns:
        The document, and the raw samples in seconds.

    Raises:
        DataError: the images cannot be read.
        EnvironmentProblem: a provider or a precision that was asked for cannot be run here.
        MissingExtra: ONNX Runtime is not installed.
        UsageError: the bundle does not hold a precision that was asked for.
    """
    watch = Stopwatch()
    found = engines_of(bundle, settings)
    tools = find_tools(found) if settings.cross_check else {}
    cells = cells_of(bundle, settings, found)
    fed, said = _images(images, max(settings.batches), settings.seed)
    rows, samples = time_cells(cells, fed, settings.effort, on_part, before)
    on_gpu = any(row.provider != "cpu" for row in rows if row.latency is not None)
    provenance = watch.provenance(
        seed=settings.seed, device="cuda:0" if on_gpu else "cpu", recipe_sha256=settings.recipe_sha256
    )
    document = BenchmarkDocument(
        rows=rows,
        cross_checks=list(cross_checks(found, rows, bundle.spec, tools)) if tools else [],
        images=said,
        bundle_sha256=bundle.sha256,
        provenance=provenance,
    )
    return document, samples


def engines_of(bundle: Bundle, settings: Settings) -> list[FoundEngine]:
    """The engines that are timed, and those that cannot be.

    Raises:
        EnvironmentProblem: nothing but engines was asked for, and none can be run here.
    """
    if "tensorrt" not in settings.runners:
        return []
    return engines_for(settings.engines, bundle, settings.precisions, settings.runners)


def cells_of(bundle: Bundle, settings: Settings, found: Sequence[FoundEngine]) -> list[Cell]:
    """Precisions x providers x batches in ONNX Runtime, then the engines; a cell that cannot be timed says why.

    Raises:
        UsageError: the bundle does not hold a precision that was asked for.
    """

    def opener(precision: str, provider: str, batch: int) -> Callable[[], OnnxRuntimeRunner]:
        return lambda: OnnxRuntimeRunner(
            bundle.model(precision),
            provider=provider,
            threads=settings.threads,
            precision=precision,
            allow_cpu=settings.allow_cpu,
            shapes=profile_shapes(bundle.spec, [batch]),
        )

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
            open=opener(precision, provider, batch),
            required=settings.precisions is not None,
            size_mb=bundle.model_mb(precision),
        )
        for precision in (precisions if "onnxruntime" in settings.runners else ())
        for provider in named_providers(settings.providers)
        for batch in settings.batches
    ]
    cells += engine_cells(found, settings.batches, bundle.spec)
    return cells


def _images(images: LabelledImages | None, count: int, seed: int) -> tuple[list[Image.Image], str]:
    if images is not None:
        # All must be readable: a cell that is fed other images than it says measures something else.
        return [image for image, _ in islice(images.read([], 0.0), count)], f"of {images.folder}"
    width, height = SYNTHETIC_SIZE
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return [Image.fromarray(pixels)], f"noise of {width}x{height} pixels; there were no images (--images)"
