"""`dskd-compress benchmark`: latency, throughput and energy."""

from __future__ import annotations

from dskd_compress.commands import options


def benchmark(run: options.Run, set_: options.Overrides = None, json_output: options.JsonFlag = False) -> None:
    """Time teacher and student in torch and ONNX Runtime, engine alone and with preprocessing.

    Energy, clocks and temperatures are watched meanwhile, where this machine shows them.

    [bold]Examples[/bold]

      dskd-compress benchmark runs/r18
      dskd-compress benchmark runs/r18 --set 'benchmark.batches=[1,4,16]' --set benchmark.threads=1
    """
    from rich.text import Text

    from dskd_compress.console import Output
    from dskd_compress.run_folder import RunFolder

    output = Output(json_output)
    folder = RunFolder(run)
    recipe = folder.read_recipe(set_ or [])

    from dskd_compress.stages.benchmark import run_benchmark

    document = run_benchmark(recipe, folder, output)
    output.table(
        "Latency",
        ["model", "runner", "batch", "part", "p50 ms", "p99 ms", "images/s", "mJ/image", ""],
        [
            [
                row.model,
                f"{row.runner} {row.provider}",
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
    output.result(document)
