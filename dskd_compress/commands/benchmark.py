"""`dskd-compress benchmark`: latency, throughput and energy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from dskd_compress.commands import options

if TYPE_CHECKING:
    from dskd_compress.console import Output
    from dskd_export.documents.benchmark import BenchmarkDocument, RowJudgement


def benchmark(
    source: options.RunOrBundle,
    precision: options.Precisions = None,
    runner: options.Runners = None,
    provider: options.Providers = None,
    allow_cpu: options.AllowCpu = None,
    batch: Annotated[
        Optional[list[int]], typer.Option("--batch", help="Images of a call; repeatable. Default: 1 and 8.")
    ] = None,
    threads: Annotated[
        Optional[list[int]], typer.Option("--threads", help="CPU threads; repeatable. Default: all cores.")
    ] = None,
    streams: Annotated[
        Optional[list[int]],
        typer.Option("--streams", help="Calls of a TensorRT engine under way at once; repeatable. Default: 1."),
    ] = None,
    scenario: Annotated[
        Optional[list[str]],
        typer.Option(
            "--scenario", help="Of MLPerf LoadGen: SingleStream, MultiStream, Server, Offline or all; repeatable."
        ),
    ] = None,
    images: Annotated[
        Optional[Path],
        typer.Option("--images", metavar="FOLDER", help="Of a bundle: labelled images to feed. Default: noise."),
    ] = None,
    cross_check: Annotated[
        Optional[str],
        typer.Option(
            "--cross-check", metavar="trtexec", help="Have TensorRT's own tool time the engines as well."
        ),
    ] = None,
    against: Annotated[
        Optional[Path],
        typer.Option("--against", metavar="RUN_OR_BUNDLE", help="Time this one as well, in turns."),
    ] = None,
    baseline: Annotated[
        Optional[Path],
        typer.Option("--baseline", metavar="FILE", help="An older benchmark.json; slower is exit code 5."),
    ] = None,
    junit: Annotated[
        Optional[Path], typer.Option("--junit", metavar="FILE", help="Write the verdict as JUnit XML as well.")
    ] = None,
    summary: Annotated[
        Optional[Path],
        typer.Option("--summary", metavar="FILE", help="Add a Markdown table to it, as to GitHub's."),
    ] = None,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="End with 0 where the budget or the baseline is missed.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Time everything anew, also what an interrupted benchmark has done.")
    ] = False,
    device: Annotated[
        Optional[list[str]],
        typer.Option(
            "--device",
            metavar="DEVICE",
            help="Of a bundle: local, or ssh://user@host; repeatable. Default: local.",
        ),
    ] = None,
    remote_command: Annotated[
        Optional[str],
        typer.Option("--remote-command", help="With ssh: what starts this tool there. Default: dskd-compress."),
    ] = None,
    ssh_config: Annotated[
        Optional[Path], typer.Option("--ssh-config", metavar="FILE", help="With ssh: its configuration.")
    ] = None,
    out: options.Results = None,
    set_: options.Overrides = None,
    json_output: options.JsonFlag = False,
) -> None:
    """Time the models, each engine alone and with preprocessing.

    Of a run: teacher and student in torch and ONNX Runtime. Of a bundle: every precision in ONNX
    Runtime, without torch. Of both: the TensorRT engines that [bold]build[/bold] made, where they can be
    run. Energy, clocks and temperatures are watched meanwhile, where this machine
    shows them. What was interrupted goes on with the same line. Over ssh the bundle is sent once and the same
    command runs there.

    Exit code 5 where no model meets the [bold]budget[/bold] of this device, or one is slower than in --baseline;
    6 where a value is within the budget and its interval is not.

    [bold]Examples[/bold]

      dskd-compress benchmark runs/r18
      dskd-compress benchmark runs/r18 --set 'benchmark.batches=[1,4,16]' --set benchmark.threads=1
      dskd-compress benchmark r18.tar.gz --precision int8 --batch 1 --threads 1 --threads 4
      dskd-compress benchmark bundle --scenario all --set benchmark.server_bound_ms=10
      dskd-compress benchmark bundle --set budget.latency_p99_ms=8 --baseline benchmark.old.json --junit speed.xml
      dskd-compress benchmark bundle --runner tensorrt --cross-check trtexec --out results/orin
      dskd-compress benchmark runs/r18 --against runs/r18-kd --precision int8 --batch 1
      dskd-compress benchmark bundle --device ssh://user@orin --device local
    """
    from rich.text import Text

    from dskd_compress.console import Output
    from dskd_compress.show.benchmark import print_cross_checks, print_rows, print_scenarios
    from dskd_compress.show.verdicts import decision_in
    from dskd_export.bundle.source import is_bundle
    from dskd_export.errors import UsageError

    output = Output(json_output)
    flags = options.as_overrides(
        benchmark__precisions=precision,
        benchmark__runners=runner,
        benchmark__providers=provider,
        benchmark__allow_cpu=options.operators(allow_cpu),
        benchmark__batches=batch,
        benchmark__threads=threads,
        benchmark__streams=streams,
        benchmark__scenarios=scenario,
        benchmark__cross_check=cross_check,
    )
    changes = [*flags, *(set_ or [])]
    written = None
    if against is not None:
        if device or images is not None or baseline is not None:
            raise UsageError("--against times two bundles here.", "Leave --device, --images and --baseline out.")
        _in_turns(source, against, changes, out, output)
        return
    if device:
        _on_devices(source, device, changes, images, remote_command, ssh_config, out, report_only, output)
        return
    if remote_command is not None or ssh_config is not None:
        raise UsageError("--remote-command and --ssh-config are for --device ssh://...", "Name the device.")
    before = _baseline(baseline)
    if is_bundle(source):
        from dskd_compress.stages.on_device import benchmark_source

        document, written = benchmark_source(source, changes, images, out, output, fresh=fresh)
    else:
        from dskd_compress.run_folder import RunFolder

        run = RunFolder(source)
        recipe = run.read_recipe(changes)
        options.refuse_out(out)
        if images is not None:
            raise UsageError(
                f"--images {images}: a run is timed with its own images.",
                f"Leave --images out, or {options.of_bundle('benchmark', run, str(images))}",
            )
        options.say_chosen(recipe.benchmark.precisions, "benchmark.precisions", changes, output)

        from dskd_compress.stages.benchmark import run_benchmark

        document = run_benchmark(recipe, run, output, fresh=fresh)
    print_rows([("", document)], output)
    print_scenarios(document, output)
    print_cross_checks(document, output)
    for reason in dict.fromkeys(row.energy_reason for row in document.rows if row.energy_reason):
        output.print(Text(f"No energy: {reason}."))
    for reason in dict.fromkeys(f"{row.precision} on {row.provider}: {row.unavailable}" for row in document.rows):
        if not reason.endswith(": "):
            output.warn(f"not timed: {reason}")
    if document.images:
        from rich.markup import escape

        output.print(escape(f"Images: {document.images}"))
    older = _judge(document, before, junit, summary, output)
    output.plain(decision_in(written or source).sentence)
    options.say_where(written, output)
    output.result(document)
    if not report_only:
        from dskd_compress.show.benchmark import refuse_slow

        refuse_slow(document.judgements, older)


def _in_turns(first: Path, second: Path, changes: list[str], out: Path | None, output: Output) -> None:
    from dskd_compress.show.benchmark import print_comparisons
    from dskd_compress.stages.against import compare_bundles

    document, path = compare_bundles(first, second, changes, out, output)
    print_comparisons(document, output)
    output.plain(f"Results: {path}")
    output.result(document)


def _baseline(path: Path | None) -> BenchmarkDocument | None:
    """An older benchmark of this machine; what is wrong with it is told before anything is timed."""
    if path is None:
        return None
    from dskd_export.benchmark.budget import refuse_other_machine
    from dskd_export.documents.base import read_document
    from dskd_export.documents.benchmark import BenchmarkDocument
    from dskd_export.telemetry.host import host_facts

    document = read_document(path, BenchmarkDocument)
    refuse_other_machine(host_facts(document.provenance.device.device), document.provenance.device)
    return document


def _judge(
    document: BenchmarkDocument,
    before: BenchmarkDocument | None,
    junit: Path | None,
    summary: Path | None,
    output: Output,
) -> list[RowJudgement]:
    """Print and write what the budget and a baseline say; gives the baseline's part."""
    import os
    from pathlib import Path

    from dskd_compress.show.benchmark import add_summary, print_judgements
    from dskd_export.benchmark.budget import against_baseline
    from dskd_export.ci.summary import junit_of_benchmark
    from dskd_export.files.atomic import write_atomic

    older = [] if before is None else against_baseline(document, before)
    print_judgements("Budget", document.judgements, output)
    print_judgements("Baseline", older, output)
    if junit is not None:
        write_atomic(junit, junit_of_benchmark(document, older))
    actions = os.environ.get("GITHUB_STEP_SUMMARY")
    for path in dict.fromkeys([summary, Path(actions) if actions else None]):
        if path is not None:
            add_summary(path, document, older)
    return older


def _on_devices(
    source: Path,
    devices: list[str],
    changes: list[str],
    images: Path | None,
    remote_command: str | None,
    ssh_config: Path | None,
    out: Path | None,
    report_only: bool,
    output: Output,
) -> None:
    from dskd_compress.show.benchmark import print_rows
    from dskd_compress.stages.devices import Remotes, benchmark_devices, refuse_failed
    from dskd_export.bundle import bundle_of
    from dskd_export.errors import UsageError

    if images is not None:
        raise UsageError(f"--images {images} stays on this machine.", "Leave --images or --device out.")
    remotes = Remotes(remote_command or "dskd-compress", () if ssh_config is None else ("-F", str(ssh_config)))
    document, folder = benchmark_devices(bundle_of(source), devices, changes, out, remotes, output)
    print_rows([(one.name, one.benchmark) for one in document.devices if one.benchmark is not None], output)
    output.plain(f"Results: {folder / 'devices.json'}")
    output.result(document)
    refuse_failed(document)
    if not report_only:
        from dskd_compress.show.benchmark import refuse_slow_anywhere

        refuse_slow_anywhere([one.benchmark for one in document.devices if one.benchmark is not None])
