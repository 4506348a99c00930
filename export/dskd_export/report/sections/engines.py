"""TensorRT engines: what built them, and in which number types their layers run."""

from __future__ import annotations

from dskd_export.engine.document import BuildDocument
from dskd_export.engine.inspect import format_shares
from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import Note, Section
from dskd_export.report.load import Run
from dskd_export.report.tables import Cell, code, make_table, missing, number


def section_from_run(run: Run) -> Section:
    """List the engines of the run, a row each."""
    if not run.engines:
        return Section("engines", "Engines", [Note("No TensorRT engine. Run: dskd-compress build", "missing")])
    rows = [_row(name, document) for name, document in run.engines.items()]
    note = (
        "Runs in: layer times of the inspector where the engine was run; the builder's log where it was built "
        "ahead of time. build exits with code 5 where less than 80 % of the time is in the requested precision."
    )
    return Section("engines", "Engines", [make_table("engines-table", "Engines of this run", rows, note)])


def _row(name: str, document: BuildDocument) -> dict[str, Cell]:
    truth = document.truth
    runs_in = reformat = missing(document.no_truth or "not inspected")
    if truth is not None:
        share = truth.reformat_time_share
        time = "" if share is None else f", {fmt.percent(share)} of the time"
        runs_in, reformat = Cell(format_shares(truth)), Cell(f"{len(truth.reformat_layers)}{time}")
    return {
        "engine": Cell(name.removesuffix(".build.json")),
        "built by": Cell(f"{document.backend} {document.version}"),
        "for": Cell(", ".join(document.targets) if document.gpu is None else document.gpu.name),
        "batches": Cell(document.batches or "the model's own"),
        "runs in": runs_in,
        "reformat layers": reformat,
        "size": number(fmt.megabytes(document.engine_bytes / 1e6)),
        "build time": number(fmt.duration(document.build_seconds)),
        "peak memory": number(fmt.megabytes(document.peak_memory_mb)),
        "sha256": code(document.engine_sha256),
    }
