"""`dskd-compress benchmark`: latency and throughput."""

from __future__ import annotations

from dskd_compress.commands import options


def benchmark(run: options.Run, set_: options.Overrides = None, json_output: options.JsonFlag = False) -> None:
    """Time teacher and student in torch and ONNX Runtime, engine alone and with preprocessing.

    [bold]Examples[/bold]

      dskd-compress benchmark runs/r18
      dskd-compress benchmark runs/r18 --set 'benchmark.batches=[1,4,16]' --set benchmark.threads=1
    """
    from dskd_compress.console import Output
    from dskd_compress.run_folder import RunFolder

    output = Output(json_output)
    folder = RunFolder(run)
    recipe = folder.read_recipe(set_ or [])

    from dskd_compress.stages.benchmark import run_benchmark

    document = run_benchmark(recipe, folder, output)
    output.table(
        "Latency",
        ["model", "runner", "batch", "part", "p50 ms", "p99 ms", "images/s", ""],
        [
            [
                row.model,
                f"{row.runner} {row.provider}",
                str(row.batch),
                row.part.replace("_", " "),
                f"{row.latency.p50_ms:.3f}",
                f"{row.latency.p99_ms:.3f}",
                f"{row.throughput_images_per_s:.0f}",
                "" if row.latency.stable else f"UNSTABLE: {row.latency.reason}",
            ]
            for row in document.rows
            if row.latency is not None
        ],
    )
    output.result(document)
