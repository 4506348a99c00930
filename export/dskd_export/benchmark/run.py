"""Run a benchmark: cells, scenarios, TensorRT's own tool, budget. One flow for runs and bundles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np
from PIL import Image

from dskd_export.benchmark.budget import judge_rows
from dskd_export.benchmark.cells import Samples, time_cells
from dskd_export.benchmark.loadgen import run_scenarios, scenario_batch
from dskd_export.benchmark.plan import BenchmarkPlan
from dskd_export.benchmark.profile_models import choose_batch, profile_models
from dskd_export.benchmark.store import CellStore
from dskd_export.benchmark.trtexec import find_tools, run_cross_checks
from dskd_export.documents.base import Provenance
from dskd_export.documents.benchmark import BenchmarkDocument, BenchmarkRow
from dskd_export.errors import EnvironmentProblem
from dskd_export.runtime.labelled_images import LabelledImages
from dskd_export.settings import BudgetSettings
from dskd_export.telemetry.host import device_name

# Size of an average photo of ImageNet, which decides the time of resizing.
NOISE_SIZE = (500, 375)


def benchmark(
    plan: BenchmarkPlan,
    images: Sequence[Image.Image],
    image_source: str,
    budget: BudgetSettings,
    store: CellStore | None,
    *,
    seed: int,
    provenance: Callable[..., Provenance],
    on_step: Callable[[], object],
    on_status: Callable[[str], object],
) -> tuple[BenchmarkDocument, Samples]:
    """Time all models of a plan and judge them by the budget; only the store is written.

    Args:
        plan: models, engines and settings.
        images: `max_batch` of the plan, or fewer, which are repeated.
        image_source: where they come from, in words; empty: the validation set of a run.
        budget: limits of a timed student.
        store: keeps finished cells; None: nothing is kept.
        seed: of Server's arrivals.
        provenance: called with the device that computed, when all is measured.
        on_step: called after every row, scenario and profile.
        on_status: called with what is timed next.

    Returns:
        The document, and seconds of every call by `samples_key` of a row.

    Raises:
        EnvironmentProblem: TensorRT's tool is requested and missing, a provider or an engine does not run, or no
            model can be timed here.
    """
    settings, spec = plan.settings, plan.bundle.spec
    tools = find_tools(plan.engines) if settings.cross_check is not None else {}
    rows, samples = time_cells(plan.cells(settings.batches), images, settings, on_step, on_status, store)
    _require_times(rows)
    cells = {name: plan.cells([scenario_batch(name, settings)]) for name in plan.scenarios}
    scenarios = []
    for result in run_scenarios(cells, images, settings, seed, on_status):
        scenarios.append(result)
        on_step()
    profiles = []
    if settings.profile:
        batch = choose_batch(settings.batches, budget.batch)
        profiles = profile_models(plan, rows, images, batch, on_step, on_status)
    on_gpu = any(row.provider != "cpu" for row in rows if row.latency is not None)
    document = BenchmarkDocument(
        rows=rows,
        scenarios=scenarios,
        cross_checks=list(run_cross_checks(plan.engines, rows, spec, tools)) if tools else [],
        profiles=profiles,
        judgements=judge_rows(budget.speed(device_name()), rows, batch=budget.batch, part=budget.part),
        images=image_source,
        bundle_sha256=plan.bundle.sha256,
        provenance=provenance(device="cuda:0" if on_gpu else "cpu"),
    )
    return document, samples


def draw_images(labelled: LabelledImages | None, count: int, seed: int) -> tuple[list[Image.Image], str]:
    """Read images of a folder, or make one of noise where there is none; with their source, in words.

    Args:
        labelled: of a folder; None: noise.
        count: images to read.
        seed: of the noise.

    Raises:
        DataError: one cannot be read. None is left out: a cell must be fed the images that its row names.
    """
    if labelled is not None:
        read = islice(labelled.read([], None), count)
        return [image for image, _ in read], f"of {labelled.folder}"
    width, height = NOISE_SIZE
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return [Image.fromarray(pixels)], f"noise of {width}x{height} pixels; there were no images (--images)"


def _require_times(rows: Sequence[BenchmarkRow]) -> None:
    if rows and all(row.latency is None for row in rows):
        first = rows[0]
        raise EnvironmentProblem(
            f"No model can be timed here: {first.runner}:{first.provider}:{first.precision}: {first.unavailable}",
            "See what this machine can run: dskd-compress doctor --for benchmark",
        )
