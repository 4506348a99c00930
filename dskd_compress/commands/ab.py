"""`dskd-compress ab`: which of two bundles is faster?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dskd_compress.commands import benchmark_options as bench
from dskd_compress.commands import options

if TYPE_CHECKING:
    from dskd_compress.console import Output


def ab(
    first: Annotated[Path, typer.Argument(metavar="A", help="Run folder, or a bundle, packed or not.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="The same; its time is compared with that of A.")],
    precision: bench.Precision = None,
    runner: bench.Runner = None,
    provider: bench.Provider = None,
    batch: bench.Batch = None,
    out: bench.Results = None,
    set_: bench.Overrides = None,
    json_output: options.JsonFlag = False,
) -> None:
    """A/B-test two runs or bundles: which is faster, model by model?

    Calls of both are interleaved in one process, so that both see the same clocks and the same load. A model is
    faster or slower where the whole 95 % interval of the ratio of medians is, by more than 1 %.

    [bold]Examples[/bold]

      dskd-compress ab runs/r18 runs/r18-kd --precision int8 --batch 1
      dskd-compress ab old.tar.gz new.tar.gz --set benchmark.threads=1 --json
    """
    from dskd_compress.console import Output

    changes = bench.collect_overrides(precision, runner, provider, batch, set_)
    compare_bundles(first, second, changes, out, Output(json_output))


def compare_bundles(first: Path, second: Path, changes: list[str], out: Path | None, output: Output) -> None:
    """Time the models that two bundles have in common, interleaved; writes `ab.json` and prints it.

    Args:
        first: a run folder, or a bundle, packed or not.
        second: the same; it may be the first again.
        changes: `key=value` of the sections that apply to a bundle.
        out: folder for the results; None: that of the second.
        output: of the command.

    Raises:
        BundleError: one is no bundle, or damaged.
        UsageError: they have no model in common that can run here.
    """
    from contextlib import ExitStack

    from dskd_compress.recipe import bundle_settings
    from dskd_compress.run_folder import recipe_sha256
    from dskd_compress.show.benchmark import print_comparisons
    from dskd_export.benchmark.ab_test import compare_cells, pair_cells
    from dskd_export.benchmark.plan import plan_benchmark
    from dskd_export.benchmark.run import draw_images
    from dskd_export.bundle import bundle_of
    from dskd_export.bundle.results import check_out, hold_results, results_folder
    from dskd_export.bundle.source import is_bundle, open_source
    from dskd_export.documents.benchmark import AbDocument
    from dskd_export.engine import engines_folder
    from dskd_export.errors import UsageError
    from dskd_export.files.atomic import write_atomic
    from dskd_export.provenance import Stopwatch
    from dskd_export.telemetry.device_name import device_name

    watch, folder = Stopwatch(), out or results_folder(second, device_name())
    check_out(folder, second)
    with ExitStack() as stack:
        sources = [one if is_bundle(one) else bundle_of(one) for one in (first, second)]
        bundles = [stack.enter_context(open_source(one)) for one in sources]
        stack.enter_context(hold_results(folder, output.warn))
        recipe = bundle_settings(changes, seed=bundles[0].manifest.provenance.seed)
        plans = [
            plan_benchmark(bundle, recipe.benchmark, engines_folder(source))
            for bundle, source in zip(bundles, (first, second), strict=True)
        ]
        pairs = pair_cells(*plans)
        with output.progress("A/B test", len(pairs), unit="pair") as progress:
            comparisons = list(
                compare_cells(
                    pairs,
                    draw_images(None, 1, recipe.seed).images,
                    seconds=recipe.benchmark.min_seconds,
                    seed=recipe.seed,
                    on_step=lambda: progress.advance(1),
                    on_status=lambda text: progress.update(description=text),
                )
            )
    if not comparisons:
        raise UsageError(
            f"{first} and {second} have no model in common that can run here.",
            "Name a precision and a provider that both have: --precision, --provider",
        )
    device = "cuda:0" if any(one.provider != "cpu" for one, _ in pairs) else "cpu"
    document = AbDocument(
        first=str(first),
        second=str(second),
        first_sha256=bundles[0].sha256,
        second_sha256=bundles[1].sha256,
        comparisons=comparisons,
        provenance=watch.provenance(seed=recipe.seed, device=device, recipe_sha256=recipe_sha256(recipe)),
    )
    write_atomic(folder / "ab.json", document.model_dump_json(indent=2) + "\n")
    print_comparisons(document, output)
    output.plain(f"Results: {folder / 'ab.json'}")
    output.result(document)
