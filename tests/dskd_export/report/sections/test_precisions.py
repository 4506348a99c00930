from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from export_document_support import make_export_document, make_int8, make_search

from dskd_export.documents.export import ExportDocument, LayerSensitivity
from dskd_export.report import build_report
from dskd_export.report.blocks import Note, Section
from dskd_export.report.load import Run
from dskd_export.report.sections.precisions import section_from_run
from dskd_export.report.tables import Table


def _section(document: ExportDocument | None) -> Section:
    return section_from_run(Run(Path("run"), export=document))


def _texts(table: Table) -> list[list[str]]:
    return [[cell.text.replace("\xa0", " ") for cell in row] for row in table.rows]


def test_a_row_for_each_model():
    (table,) = _section(make_export_document(make_int8())).blocks
    assert isinstance(table, Table)
    assert _texts(table) == [["int8", "a tool 1.0 max", "fp32", "3.50 MB", "nothing", "21 s"]]
    assert "128 training images" in table.caption
    assert "2 that are in both sets were left out" in table.note


def test_the_layers_that_cost_most_stand_first_with_what_became_of_them():
    layers = [
        LayerSensitivity(nodes=["conv2"], kl=0.17, kept=True),
        LayerSensitivity(nodes=["a", "b", "c"], kl=0.001, kept=False),
    ]
    models, table = _section(make_export_document(make_int8(("conv2",), make_search(layers)))).blocks
    assert isinstance(models, Table)
    assert isinstance(table, Table)
    assert _texts(models)[0][4] == "conv2"
    assert _texts(table) == [["conv2", "0.170", "floating point"], ["a to c (3)", "0.00100", "int8"]]
    assert "9 models in 12 s, each scored on 64 calibration images" in table.note
    assert "5.00 points lost" in table.note


def test_a_long_table_says_what_it_leaves_out():
    layers = [LayerSensitivity(nodes=[f"n{index}"], kl=1 / (index + 1), kept=False) for index in range(35)]
    _, table = _section(make_export_document(make_int8(search=make_search(layers)))).blocks
    assert isinstance(table, Table)
    assert len(table.rows) == 30
    assert table.folded
    assert "5 layers that cost less are in export.json" in table.note


def test_a_search_that_did_not_help_is_said():
    layers = [LayerSensitivity(nodes=["n"], kl=math.nan, kept=False)]
    _, note, table = _section(make_export_document(make_int8(search=make_search(layers, good=False)))).blocks
    assert isinstance(note, Note)
    assert note.kind == "warning"
    assert isinstance(table, Table)
    assert table.rows[0][1].text == "NaN or Inf"


def test_nothing_to_tell():
    (note,) = _section(make_export_document()).blocks
    assert isinstance(note, Note)
    assert "fp32 alone" in note.text
    (absent,) = _section(None).blocks
    assert "export.json" in str(absent)


def test_the_page_holds_what_the_run_folder_says(make_run: Callable[..., Path]):
    report = build_report(make_run(precisions=True))
    for text in ("conv_stem", "fc_1 to classifier (3)", "int8: cost of each layer"):
        assert text in report.html
        assert text in report.markdown.replace("\\_", "_")
