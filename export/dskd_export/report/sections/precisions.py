"""How the precisions of the bundle and the TensorRT engines were made, and what their layers cost and run in."""

from __future__ import annotations

import math

from dskd_export.documents.export import LayerSensitivity, PrecisionFacts, ScoreFacts, SearchFacts
from dskd_export.engine.document import BuildDocument
from dskd_export.engine.inspect import format_shares
from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import Block, Note, Section, missing_file
from dskd_export.report.load import Run
from dskd_export.report.tables import Cell, code, make_table, missing, number

_SHOWN = 30  # layers of a table; the rest cost less than these


def section_from_run(run: Run) -> Section:
    """Make a row for each model, and a table of layers for each search that found some."""
    section = "Precisions"
    if run.export is None:
        return Section(
            "precisions", section, [missing_file("export.json", "export", "How the precisions were made")]
        )
    made = run.export.precisions
    if not made:
        return Section("precisions", section, [Note("The bundle holds fp32 alone.")])
    title = f"Made for {run.export.target}, ranges measured on {run.export.calibration_images} training images"
    note = (
        "Rest: type of what the precision leaves out. None of the images is a validation image; "
        f"{run.export.left_out_images} that are in both sets were left out."
    )
    blocks: list[Block] = [make_table("precisions-table", title, [_row(facts) for facts in made], note)]
    for facts in made:
        if facts.search is not None and facts.search.layers:
            blocks += _search(facts.precision, facts.search)
    return Section("precisions", section, blocks)


def _row(facts: PrecisionFacts) -> dict[str, Cell]:
    return {
        "precision": Cell(facts.precision),
        "made by": Cell(facts.producer),
        "rest": Cell(facts.rest),
        "size": number(fmt.megabytes(facts.size_mb)),
        "kept in floating point": Cell(", ".join(facts.kept) or "nothing"),
        "time": number(f"{facts.seconds:.0f} s"),
    }


def _search(precision: str, search: SearchFacts) -> list[Block]:
    shown = search.layers[:_SHOWN]
    rest = sum(len(layer.nodes) for layer in search.layers[_SHOWN:])
    blocks: list[Block] = []
    if not search.good:
        text = f"{precision}: keeping half of the layers in floating point does not restore the accuracy."
        blocks.append(Note(text, "warning"))
    note = (
        f"{search.evaluations} models in {search.seconds:.0f} s, each scored on {search.images} "
        f"calibration images. All layers in {precision}: {_score(search.before)}. As in the bundle: "
        f"{_score(search.after)}." + (f" {rest} layers that cost less are in export.json." if rest else "")
    )
    rows = [_layer(layer, precision) for layer in shown]
    title = f"{precision}: cost of each layer"
    return [*blocks, make_table(f"sensitivity-{precision}", title, rows, note, folded=len(shown) > 10)]


def _layer(layer: LayerSensitivity, precision: str) -> dict[str, Cell]:
    nodes = layer.nodes
    return {
        "layers": Cell(nodes[0] if len(nodes) == 1 else f"{nodes[0]} to {nodes[-1]} ({len(nodes)})"),
        "KL to fp32 with these alone (nats)": number(layer.kl)
        if math.isfinite(layer.kl)
        else missing("NaN or Inf"),
        "in the bundle": Cell("floating point" if layer.kept else precision),
    }


def _score(score: ScoreFacts) -> str:
    kl = fmt.significant(score.kl) if math.isfinite(score.kl) else "not finite"
    lost = f"{100 * score.top1_drop:.2f}".replace("-", "−")
    return f"KL {kl} nats, same top-1 {fmt.percent(score.agreement)}, {lost} points lost"


def engines_from_run(run: Run) -> Section:
    """List the engines of the run, a row each."""
    if not run.engines:
        return Section("engines", "Engines", [Note("No TensorRT engine. Run: dskd-compress build", "missing")])
    rows = [_engine_row(name, document) for name, document in run.engines.items()]
    note = (
        "Runs in: layer times of the inspector where the engine was run; the builder's log where it was built "
        "ahead of time. build exits with code 5 where less than 80 % of the time is in the requested precision."
    )
    return Section("engines", "Engines", [make_table("engines-table", "Engines of this run", rows, note)])


def _engine_row(name: str, document: BuildDocument) -> dict[str, Cell]:
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
