"""How the precisions of the bundle were made, and which layers cost them their accuracy."""

from __future__ import annotations

import math

from dskd_export.documents.export import LayerSensitivity, PrecisionFacts, ScoreFacts, SearchFacts
from dskd_export.report import formatting as fmt
from dskd_export.report.blocks import Block, Cell, Note, Section, Table, missing, not_there, number
from dskd_export.report.load import Run

_SHOWN = 30  # layers of a table; the rest cost less than these


def precisions(run: Run) -> Section:
    """A row for each model, and a table of layers for each search that had something to find."""
    section = "Precisions"
    if run.export is None:
        return Section("precisions", section, [not_there("export.json", "export", "The making of the precisions")])
    made = run.export.precisions
    if not made:
        return Section("precisions", section, [Note("The bundle holds fp32 alone.")])
    blocks: list[Block] = [
        Table(
            "precisions-table",
            f"Made for {run.export.target}, ranges measured on {run.export.calibration_images} training images",
            ("precision", "made by", "rest", "size", "kept in floating point", "made in"),
            [_row(facts) for facts in made],
            note="Rest: type of what the precision leaves out. None of the images is a validation image; "
            f"{run.export.left_out_images} that are in both sets were left out.",
        )
    ]
    for facts in made:
        if facts.search is not None and facts.search.layers:
            blocks += _search(facts.precision, facts.search)
    return Section("precisions", section, blocks)


def _row(facts: PrecisionFacts) -> list[Cell]:
    return [
        Cell(facts.precision),
        Cell(facts.producer),
        Cell(facts.rest),
        number(fmt.megabytes(facts.size_mb)),
        Cell(", ".join(facts.kept) or "nothing"),
        number(f"{facts.seconds:.0f} s"),
    ]


def _search(precision: str, search: SearchFacts) -> list[Block]:
    shown = search.layers[:_SHOWN]
    rest = sum(len(layer.nodes) for layer in search.layers[_SHOWN:])
    blocks: list[Block] = []
    if not search.good:
        blocks.append(
            Note(
                f"{precision}: no list of layers short enough to be worth it brings the accuracy back.", "warning"
            )
        )
    blocks.append(
        Table(
            f"sensitivity-{precision}",
            f"{precision}: what each layer costs",
            ("layers", "KL to fp32 with these alone (nats)", "in the bundle"),
            [_layer(layer, precision) for layer in shown],
            note=f"{search.evaluations} models in {search.seconds:.0f} s, each scored on {search.images} "
            f"calibration images. All layers in {precision}: {_score(search.before)}. As in the bundle: "
            f"{_score(search.after)}." + (f" {rest} layers that cost less are in export.json." if rest else ""),
            folded=len(shown) > 10,
        )
    )
    return blocks


def _layer(layer: LayerSensitivity, precision: str) -> list[Cell]:
    names = (
        layer.nodes[0] if len(layer.nodes) == 1 else f"{layer.nodes[0]} to {layer.nodes[-1]} ({len(layer.nodes)})"
    )
    cost = missing("NaN or Inf") if not math.isfinite(layer.kl) else number(fmt.significant(layer.kl))
    return [Cell(names), cost, Cell("floating point" if layer.kept else precision)]


def _score(score: ScoreFacts) -> str:
    kl = fmt.significant(score.kl) if math.isfinite(score.kl) else "not finite"
    lost = f"{100 * score.top1_drop:.2f}".replace("-", "−")
    return f"KL {kl} nats, same top-1 {fmt.percent(score.agreement)}, {lost} points lost"
