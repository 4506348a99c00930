"""`dskd-compress benchmark`: latency, throughput and energy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from dskd_compress.commands import options


def benchmark(
    source: options.RunOrBundle,
    precision: options.Precisions = None,
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
    out: options.Results = None,
    set_: options.Overrides = None,
    json_output: options.JsonFlag = False,
) -> None:
    """Time the models, each engine alone and with preprocessing.

    Of a run: teacher and student in torch and ONNX Runtime. Of a bundle: every precision in ONNX
    Runtime, without torch. Energy, clocks and temperatures are watched meanwhile, where this machine
    shows them.

    [bold]Examples[/bold]

      dskd-compress benchmark runs/r18
      dskd-compress benchmark runs/r18 --set 'benchmark.batches=[1,4,16]' --set benchmark.threads=1
      dskd-compress benchmark r18.tar.gz --precision int8 --batch 1 --threads 4
      dskd-compress benchmark bundle --provider tensorrt --out results/orin
    """
    from rich.text import Text

    from dskd_compress.console import Output
    from dskd_export.errors import UsageError
    from dskd_export.on_device.source import is_bundle

    output = Output(json_output)
    flags = options.as_overrides(
        benchmark__precisions=precision,
        benchmark__providers=provider,
        benchmark__allow_cpu=options.operators(allow_cpu),
        benchmark__batches=batch,
        benchmark__threads=threads,
    )
    changes = [*flags, *(set_ or [])]
    written = None
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
    output.table(
        "Latency",
        ["model", "runner", "batch", "part", "p50 ms", "p99 ms", "images/s", "mJ/image", ""],
        [
            [
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
            for row in document.rows
            if row.latency is not None
        ],
    )
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
