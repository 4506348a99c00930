"""Two bundles in turns, model by model: which is faster? Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path

from PIL import Image

from dskd_compress.console import Output
from dskd_compress.recipe import bundle_settings
from dskd_compress.run_folder import recipe_sha256
from dskd_compress.stages.on_device import benchmark_settings
from dskd_export.benchmark.ab_test import ratio_of, take_turns, verdict_of
from dskd_export.benchmark.cells import Cell
from dskd_export.bundle import Bundle, bundle_of
from dskd_export.bundle.results import check_out, hold_results, results_folder
from dskd_export.bundle.source import is_bundle, open_source
from dskd_export.documents.benchmark import AbDocument, Comparison
from dskd_export.errors import ProviderLacksKernel, UsageError
from dskd_export.files.atomic import write_atomic
from dskd_export.on_device import benchmark
from dskd_export.provenance import Stopwatch
from dskd_export.runtime.preprocess import preprocess_batch
from dskd_export.runtime.runner import Runner
from dskd_export.telemetry.device_name import device_name
from dskd_export.telemetry.monitor import Monitor

AB = "ab.json"
_BLOCK_SHARE = 1 / 60


def compare_bundles(
    first: Path, second: Path, overrides: list[str], out: Path | None, output: Output
) -> tuple[AbDocument, Path]:
    """Time the models that two bundles have in common, in turns; writes `ab.json`, whose path is given back.

    Args:
        first: a bundle, packed or not, or a run that holds one.
        second: the same; it may be the first once more.
        overrides: `key=value` of the sections that a bundle takes.
        out: folder for the results; None: that of the second.
        output: shows how far it is.

    Raises:
        BundleError: one is none, or damaged.
        UsageError: they have no model in common that can be run here.
    """
    watch = Stopwatch()
    folder = out or results_folder(second, device_name())
    check_out(folder, second)
    with ExitStack() as stack:
        bundles = [
            stack.enter_context(open_source(one if is_bundle(one) else bundle_of(one))) for one in (first, second)
        ]
        stack.enter_context(hold_results(folder, output.warn))
        recipe = bundle_settings(overrides, seed=bundles[0].manifest.provenance.seed)
        section = recipe.benchmark
        pairs = list(_pairs(bundles, [first, second], overrides))
        if not pairs:
            raise UsageError(
                f"{first} and {second} have no model in common that can be run here.",
                "Name a precision and a provider that both have (--precision, --provider).",
            )
        images, _ = benchmark.synthetic_images(recipe.seed)
        comparisons = []
        with output.progress("In turns", len(pairs), unit="pair") as progress:
            for one, other in pairs:
                progress.update(description=one.shown)
                found = _compared(one, other, images, section.min_seconds, recipe.seed)
                comparisons += [] if found is None else [found]
                progress.advance(1)
    if not comparisons:
        raise UsageError(f"No model of {first} and {second} can be computed here.", "Choose another --precision.")
    on_gpu = any(one.provider != "cpu" for one, _ in pairs)
    document = AbDocument(
        first=str(first),
        second=str(second),
        first_sha256=bundles[0].sha256,
        second_sha256=bundles[1].sha256,
        comparisons=comparisons,
        provenance=watch.provenance(
            seed=recipe.seed, device="cuda:0" if on_gpu else "cpu", recipe_sha256=recipe_sha256(recipe)
        ),
    )
    write_atomic(folder / AB, document.model_dump_json(indent=2) + "\n")
    return document, folder / AB


def _pairs(
    bundles: Sequence[Bundle], sources: Sequence[Path], overrides: list[str]
) -> Iterator[tuple[Cell, Cell]]:
    """Cells that both have: the same runner, provider, precision, batch and threads."""
    both = []
    for bundle, source in zip(bundles, sources, strict=True):
        settings = benchmark_settings(source, bundle_settings(overrides, seed=bundle.manifest.provenance.seed))
        work = benchmark.work_of(bundle, settings)
        both.append({cell.key: cell for cell in work.cells_of(work.batches) if not cell.unavailable})
    for key, cell in both[0].items():
        if key in both[1]:
            yield cell, both[1][key]


def _compared(
    one: Cell, other: Cell, images: Sequence[Image.Image], seconds: float, seed: int
) -> Comparison | None:
    try:
        with one.open() as first, other.open() as second, Monitor(one.device) as monitor:
            calls = [_call(cell, runner, images) for cell, runner in ((one, first), (other, second))]
            for call in calls:
                call()
            with monitor.watch() as watch:
                turns = take_turns(
                    calls[0], calls[1], min_seconds=2 * seconds, block_seconds=seconds * _BLOCK_SHARE, seed=seed
                )
            _, telemetry = watch.facts(watch.began_s, watch.ended_s, 1)
    except ProviderLacksKernel:
        if one.required:
            raise
        return None
    ratio = ratio_of(turns)
    reasons = telemetry.unstable
    name = f"{one.runner}:{one.provider}:{one.precision}"
    return Comparison(
        first=name,
        second=f"{other.runner}:{other.provider}:{other.precision}",
        batch=one.batch,
        part="engine",
        pairs=len(turns.log_ratios),
        ratio=ratio,
        verdict=verdict_of(ratio),
        stable=not reasons,
        reason="; ".join(reasons),
    )


def _call(cell: Cell, runner: Runner, images: Sequence[Image.Image]) -> Callable[[], object]:
    feeds = {cell.spec.input_name: preprocess_batch(list(islice(cycle(images), cell.batch)), cell.spec)}
    return lambda: runner.infer(feeds)
