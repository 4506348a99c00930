"""`dskd-compress benchmark`: latency, throughput and energy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from dskd_compress.commands import options

if TYPE_CHECKING:
    from dskd_compress.console import Output
    from dskd_export.benchmark_document import BenchmarkDocument


def benchmark(
    source: options.RunOrBundle,
    precision: options.Precisions = None,
    runner: options.Runners = None,
    provider: options.Providers = None,
    allow_cpu: options.AllowCpu = None,
    batch: Annotated[
        Optional[list[int]], typer.Option("--batch", help="Images of a call; repeatable. Default: 1 and 8.")
    ] = None,
    threads: Annotated[Optional[int], typer.Option("--threads", help="CPU threads. Default: all cores.")] = None,
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
    shows them. Over ssh the bundle is sent once and the same command runs there; what was cut off goes
    on with the same line.

    [bold]Examples[/bold]

      dskd-compress benchmark runs/r18
      dskd-compress benchmark runs/r18 --set 'benchmark.batches=[1,4,16]' --set benchmark.threads=1
      dskd-compress benchmark r18.tar.gz --precision int8 --batch 1 --threads 4
      dskd-compress benchmark bundle --runner tensorrt --cross-check trtexec --out results/orin
      dskd-compress benchmark bundle --device ssh://user@orin --device local
    """
    from rich.text import Text

    from dskd_compress.console import Output
    from dskd_export.errors import UsageError
    from dskd_export.on_device.source import is_bundle

    output = Output(json_output)
    flags = options.as_overrides(
        benchmark__precisions=precision,
        benchmark__runners=runner,
        benchmark__providers=provider,
        benchmark__allow_cpu=options.operators(allow_cpu),
        benchmark__batches=batch,
        benchmark__threads=threads,
        benchmark__cross_check=cross_check,
    )
    changes = [*flags, *(set_ or [])]
    written = None
    if device:
        _on_devices(source, device, changes, images, remote_command, ssh_config, out, output)
        return
    if remote_command is not None or ssh_config is not None:
        raise UsageError("--remote-command and --ssh-config are for --device ssh://...", "Name the device.")
    if is_bundle(source):
        from dskd_compress.stages.on_device import benchmark_source

        document, written = benchmark_source(source, changes, images, out, output)
    else:
        from dskd_compress.run_folder import RunFolder

        run = RunFolder(source)
        recipe = run.read_recipe(changes)
        options.refuse_out(out)
        if images is not None:
            raise UsageError(f"--images {images}: a run is timed with its own images.", "Leave --images out.")

        from dskd_compress.stages.benchmark import run_benchmark

        document = run_benchmark(recipe, run, output)
    _print_rows([("", document)], output)
    _print_cross_checks(document, output)
    for reason in dict.fromkeys(row.energy_reason for row in document.rows if row.energy_reason):
        output.print(Text(f"No energy: {reason}."))
    for reason in dict.fromkeys(f"{row.precision} on {row.provider}: {row.unavailable}" for row in document.rows):
        if not reason.endswith(": "):
            output.warn(f"not timed: {reason}")
    if document.images:
        from rich.markup import escape

        output.print(escape(f"Images: {document.images}"))
    options.say_where(written, output)
    output.result(document)


def _print_rows(documents: Sequence[tuple[str, BenchmarkDocument]], output: Output) -> None:
    """One table of all that was timed; the first column names the device where there are several."""
    several = any(name for name, _ in documents)
    output.table(
        "Latency",
        [
            *(["device"] if several else []),
            *("model", "runner", "batch", "part", "p50 ms", "p99 ms", "images/s", "mJ/image", ""),
        ],
        [
            [
                *([name] if several else []),
                row.model,
                f"{row.runner} {row.provider} {row.precision}",
                str(row.batch),
                row.part.replace("_", " "),
                f"{row.latency.p50_ms:.3f}",
                f"{row.latency.p99_ms:.3f}",
                f"{row.throughput_images_per_s:.0f}",
                f"{row.energy_per_image_mj.value:.3g}" if row.energy_per_image_mj else "-",
                "" if row.latency.stable else f"UNSTABLE: {row.latency.reason}",
            ]
            for name, document in documents
            for row in document.rows
            if row.latency is not None
        ],
    )


def _print_cross_checks(document: BenchmarkDocument, output: Output) -> None:
    """Both clocks, side by side."""
    if not document.cross_checks:
        return
    output.table(
        "Cross-check",
        ["engine", "batch", "p50 ms", "p99 ms", "tool", "p50 ms", "p99 ms", "ratio of p50"],
        [
            [
                check.precision,
                str(check.batch),
                f"{check.own_p50_ms:.3f}",
                f"{check.own_p99_ms:.3f}",
                check.tool,
                f"{check.p50_ms:.3f}" if check.p50_ms is not None else check.reason,
                f"{check.p99_ms:.3f}" if check.p99_ms is not None else "-",
                f"{check.ratio:.3f}" if check.ratio is not None else "-",
            ]
            for check in document.cross_checks
        ],
    )


def _on_devices(
    source: Path,
    devices: list[str],
    changes: list[str],
    images: Path | None,
    remote_command: str | None,
    ssh_config: Path | None,
    out: Path | None,
    output: Output,
) -> None:
    from dskd_compress.stages.devices import Remotes, benchmark_devices, refuse_failed
    from dskd_export.bundle import bundle_of
    from dskd_export.errors import UsageError

    if images is not None:
        raise UsageError(f"--images {images} stays on this machine.", "Leave --images or --device out.")
    remotes = Remotes(remote_command or "dskd-compress", () if ssh_config is None else ("-F", str(ssh_config)))
    document, folder = benchmark_devices(bundle_of(source), devices, changes, out, remotes, output)
    _print_rows([(one.name, one.benchmark) for one in document.devices if one.benchmark is not None], output)
    output.plain(f"Results: {folder / 'devices.json'}")
    output.result(document)
    refuse_failed(document)
