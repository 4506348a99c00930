"""`dskd-compress ab`: which of two bundles is faster?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dskd_compress.commands import benchmark_options as bench
from dskd_compress.commands import options, settings

if TYPE_CHECKING:
    from dskd_compress.console import Output


@settings.takes(*settings.MEASURED)
def ab(
    *,
    first: Annotated[Path, typer.Argument(metavar="A", help="Run folder, or a bundle, packed or not.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="The same; its time is compared with that of A.")],
    changes: list[str],
    out: bench.Results = None,
    json_output: options.JsonFlag = False,
) -> None:
    """A/B-test two runs or bundles: which is faster, model by model?

    Calls of both are interleaved in one process, so that both see the same clocks and the same load. A model is
    faster or slower where the whole 95 % interval of the ratio of medians is, by more than 1 %.
    The result goes to ab.json in --out, by default the results folder of B on this machine.

    [bold]Examples[/bold]

      dskd-compress ab runs/r18 runs/r18-kd --precision int8 --batch 1
      dskd-compress ab old.tar.gz new.tar.gz --set benchmark.threads=1 --json
    """
    from dskd_compress.console import Output

    compare_bundles(first, second, changes, out, Output(json_output))


def compare_bundles(first: Path, second: Path, changes: list[str], out: Path | None, output: Output) -> None:
    """Time the models that two runs or bundles have in common, interleaved; writes `ab.json` and prints it.

    Raises:
        BundleError: one is no bundle, or damaged.
        UsageError: they have no model in common that can run here.
    """
    from contextlib import ExitStack
    from functools import partial

    from dskd_compress.recipe import bundle_settings
    from dskd_compress.run_folder import recipe_sha256
    from dskd_compress.show.benchmark import print_comparisons
    from dskd_export.benchmark.ab_test import compare_plans, count_pairs
    from dskd_export.benchmark.plan import plan_benchmark
    from dskd_export.bundle import bundle_of
    from dskd_export.bundle.results import check_out, hold_results, results_folder
    from dskd_export.bundle.source import is_bundle, open_source
    from dskd_export.engine.document import engines_folder
    from dskd_export.files.atomic import write_atomic
    from dskd_export.provenance import Stopwatch
    from dskd_export.telemetry.host import device_name

    watch, folder = Stopwatch(), out or results_folder(second, device_name())
    check_out(folder, second)
    with ExitStack() as stack:
        plans = []
        for source in (first, second):
            bundle = stack.enter_context(open_source(source if is_bundle(source) else bundle_of(source)))
            recipe = bundle_settings(changes, seed=bundle.manifest.provenance.seed)
            plans.append(plan_benchmark(bundle, recipe.benchmark, engines_folder(source)))
        stack.enter_context(hold_results(folder, output.warn))
        seed = plans[0].bundle.manifest.provenance.seed
        with output.progress("A/B test", count_pairs(*plans), unit="pair") as progress:
            document = compare_plans(
                *plans,
                names=(str(first), str(second)),
                seed=seed,
                provenance=partial(watch.provenance, seed=seed, recipe_sha256=recipe_sha256(recipe)),
                on_step=lambda: progress.advance(1),
                on_status=lambda text: progress.update(description=text),
            )
    write_atomic(folder / "ab.json", document.model_dump_json(indent=2) + "\n")
    print_comparisons(document, output)
    output.plain(f"Results: {folder / 'ab.json'}")
    output.result(document)
