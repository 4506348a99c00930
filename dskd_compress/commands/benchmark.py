"""`dskd-compress benchmark`: latency, throughput and energy of a run or a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dskd_compress.commands import benchmark_options as bench
from dskd_compress.commands import options, settings

if TYPE_CHECKING:
    from dskd_compress.console import Output
    from dskd_export.documents.benchmark import BenchmarkDocument, RowJudgement


@settings.takes(*settings.MEASURED, settings.PROFILE, *settings.hide(settings.ALLOW_CPU))
def benchmark(
    *,
    source: options.RunOrBundle,
    changes: list[str],
    images: bench.Images = None,
    baseline: bench.Baseline = None,
    junit: bench.Junit = None,
    summary: bench.Summary = None,
    report_only: bench.ReportOnly = False,
    fresh: bench.Fresh = False,
    out: bench.Results = None,
    json_output: options.JsonFlag = False,
    threads: bench.OldWords = None,
    streams: bench.OldWords = None,
    scenario: bench.OldWords = None,
    cross_check: bench.OldWords = None,
    against: bench.OldPath = None,
    device: bench.OldOn = None,
    remote_command: bench.OldText = None,
    ssh_config: bench.OldPath = None,
) -> None:
    """Measure latency, throughput and energy of the models of a run or a bundle.

    A run is timed in torch and ONNX Runtime, a bundle in ONNX Runtime, both with the TensorRT engines of
    [bold]build[/bold]. An interrupted benchmark resumes. Exit 5: no model meets the [bold]budget[/bold], or one is
    slower than the baseline. Exit 6: within the budget, its interval is not. See also: ab, fleet.

    [bold]Examples[/bold]

      dskd-compress benchmark runs/r18 --batch 1,4,16
      dskd-compress benchmark r18.tar.gz --precision int8 --set 'benchmark.threads=[1,4]'
      dskd-compress benchmark bundle --set budget.latency_p99_ms=8 --baseline old.json --junit speed.xml
      dskd-compress benchmark bundle --set 'benchmark.scenarios=[Server]'
    """
    from dskd_compress.console import Output
    from dskd_compress.show.benchmark import refuse_slow
    from dskd_export.benchmark.budget import read_baseline

    output = Output(json_output)
    if set(device or ["ssh"]) <= {"auto", "cpu", "cuda"}:  # the device of this process, as in other commands
        changes, device = [*options.as_overrides(benchmark__providers=device), *changes], None
    old = {"threads": threads, "streams": streams, "scenarios": scenario, "cross_check": cross_check}
    changes = [*bench.replace_old_flags(output, **old), *changes]
    if against or device or remote_command or ssh_config:
        rest = (against, device, remote_command, ssh_config, changes, report_only, out, output)
        _run_old(source, images, baseline, *rest)
        return
    before = read_baseline(baseline)
    document, folder = _benchmark(source, changes, images, out, output, fresh)
    older = _show(document, before, junit, summary, folder, output)
    options.say_where(None if folder == source else folder, output)
    output.result(document)
    if not report_only:
        refuse_slow(document.judgements, older)


def _benchmark(
    source: Path, changes: list[str], images: Path | None, out: Path | None, output: Output, fresh: bool
) -> tuple[BenchmarkDocument, Path]:
    """Benchmark a run or a bundle; the document, and the folder that it is in."""
    from dskd_compress.run_folder import RunFolder
    from dskd_compress.stages.benchmark import benchmark_bundle, run_benchmark
    from dskd_export.bundle.source import is_bundle
    from dskd_export.errors import UsageError

    if is_bundle(source):
        return benchmark_bundle(source, changes, images, out, output, fresh=fresh)
    run = RunFolder(source)
    recipe = run.read_recipe(changes)
    options.refuse_out(out)
    if images is not None:
        raise UsageError(
            f"--images {images}: a run is timed with its own images.",
            f"Leave --images out, or {options.of_bundle('benchmark', run, str(images))}",
        )
    options.say_chosen(recipe.benchmark.precisions, "benchmark.precisions", changes, output)
    return run_benchmark(recipe, run, output, fresh=fresh), source


def _show(
    document: BenchmarkDocument,
    before: BenchmarkDocument | None,
    junit: Path | None,
    summary: Path | None,
    folder: Path,
    output: Output,
) -> list[RowJudgement]:
    """Print and write the verdicts; those of the baseline are returned."""
    from dskd_compress.show.benchmark import print_benchmark, print_judgements
    from dskd_compress.show.validation import decision_in, print_decision
    from dskd_export.benchmark.budget import compare_with_baseline
    from dskd_export.ci.summary import write_ci_files

    print_benchmark(document, output)
    older = [] if before is None else compare_with_baseline(document, before)
    print_judgements("Budget", document.judgements, output)
    print_judgements("Baseline", older, output)
    write_ci_files(document, older, junit, summary)
    print_decision(decision_in(folder), output)
    return older


def _run_old(
    source: Path,
    images: Path | None,
    baseline: Path | None,
    against: Path | None,
    device: list[str] | None,
    remote_command: str | None,
    ssh_config: Path | None,
    changes: list[str],
    report_only: bool,
    out: Path | None,
    output: Output,
) -> None:
    """Run `ab` or `fleet` for the flags that they replace, and print the new command."""
    from dskd_compress.commands.ab import compare_bundles
    from dskd_compress.commands.fleet import run_on_fleet
    from dskd_export.errors import UsageError

    if images or baseline or (against and device) or not (against or device):
        raise UsageError(
            "--against, --on, --remote-command and --ssh-config are not for a benchmark on this machine.",
            "Use: dskd-compress ab A B, or: dskd-compress fleet BUNDLE --on ssh://user@host",
        )
    if against is not None:
        output.warn(f"--against is deprecated; use: dskd-compress ab {source} {against}")
        compare_bundles(source, against, changes, out, output)
    else:
        where = " ".join(f"--on {one}" for one in device or ())
        output.warn(f"--on of benchmark is deprecated; use: dskd-compress fleet {source} {where}")
        program = remote_command or "dskd-compress"
        run_on_fleet(source, device or [], changes, program, ssh_config, out, report_only, output)
