"""TensorRT engines: what built them, and in which number types their layers really run."""

from __future__ import annotations

from dskd_export.engine.document import BuildDocument
from dskd_export.engine.inspect import format_shares
from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import Cell, Note, Section, Table, code, missing, number
from dskd_export.report.load import Run


def engines(run: Run) -> Section:
    """A row for each engine beside the bundle."""
    title = "Engines"
    if not run.engines:
        return Section(
            "engines", title, [Note("No TensorRT engine was built. Made by: dskd-compress build", "missing")]
        )
    columns = (
        "engine",
        "built by",
        "for",
        "batches",
        "runs in",
        "layers that only reformat",
        "size",
        "built in",
        "peak memory",
        "sha256",
    )
    rows = [_row(name, document) for name, document in run.engines.items()]
    note = (
        "Runs in: by the inspector, layers timed where the engine was run; ahead of time by the builder's log. "
        "Under 80 % of the time in the precision that was asked for is exit code 5 of build."
    )
    return Section(
        "engines", title, [Table("engines-table", "Engines beside the bundle", columns, rows, note=note)]
    )


def _row(name: str, document: BuildDocument) -> list[Cell]:
    truth = document.truth
    reformat = missing(document.no_truth or "not looked at")
    if truth is not None:
        share = (
            "" if truth.reformat_time_share is None else f", {fmt.percent(truth.reformat_time_share)} of the time"
        )
        reformat = Cell(f"{len(truth.reformat_layers)}{share}")
    return [
        Cell(name.removesuffix(".build.json")),
        Cell(f"{document.backend} {document.version}"),
        Cell(", ".join(document.targets) if document.gpu is None else document.gpu.name),
        Cell(document.batches or "the model's own"),
        missing(document.no_truth or "not looked at") if truth is None else Cell(format_shares(truth)),
        reformat,
        number(fmt.megabytes(document.engine_bytes / 1e6)),
        number(fmt.duration(document.build_seconds)),
        number(fmt.megabytes(document.peak_memory_mb)),
        code(document.engine_sha256),
    ]
