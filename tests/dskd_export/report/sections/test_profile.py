"""Profiles in the report: shares, slowest nodes, and the sentence on what is slower."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

from dskd_export.benchmark.profile import explain_slower, summarize_calls
from dskd_export.documents.base import Interval, read_document
from dskd_export.documents.benchmark import BenchmarkDocument, LayerProfile
from dskd_export.report import Report, build_report
from dskd_export.runtime.layer_times import ProfiledCalls, TimedLayer

NODES = [
    TimedLayer("stem<b>", "Conv", 590.0, "fp32"),
    TimedLayer("q|1", "QuantizeLinear", 300.0),
    TimedLayer("dq", "DequantizeLinear", 110.0),
]


def make(precision: str, nodes: list[TimedLayer], p50_ms: float) -> LayerProfile:
    latency = Interval(value=p50_ms, low=p50_ms, high=p50_ms)
    empty = LayerProfile(
        model="student",
        runner="onnxruntime",
        provider="cpu",
        precision=precision,
        batch=1,
        threads=2,
        latency_p50_ms=latency,
    )
    return summarize_calls(empty, ProfiledCalls([nodes] * 3, [1.2] * 3, "the optimized graph"))


def report(folder: Path, profiles: list[LayerProfile]) -> Report:
    path = folder / "benchmark.json"
    document = read_document(path, BenchmarkDocument)
    path.write_text(document.model_copy(update={"profiles": profiles}).model_dump_json())
    return build_report(folder)


def test_shares_nodes_and_the_cause(make_run: Callable[..., Path]) -> None:
    profiles = explain_slower([make("fp32", NODES[:1], 0.6), make("int8", NODES, 1.0)])
    missing = LayerProfile(
        model="student", runner="torch", provider="cpu", precision="fp32", batch=1, reason="torch is not profiled"
    )
    made = report(make_run(), [*profiles, missing])
    markdown, html = made.markdown, made.html
    section = markdown[markdown.index("## Where the time goes") :]
    assert "int8 on onnxruntime:cpu is slower than fp32" in section
    assert "41% of the time is QuantizeLinear/DequantizeLinear, the provider computes in fp32" in section
    (row,) = [
        line
        for line in section.splitlines()
        if line.startswith("| student, ONNX Runtime, CPU, int8") and " 41.0 " in line
    ]
    assert [cell.strip() for cell in row.split("|")][2:5] == ["3", "1.00", "1.00"]
    assert "torch is not profiled" in section
    assert "stem<b>" not in html
    assert "stem&lt;b&gt;" in html


def test_a_run_without_profiles_has_no_such_section(make_run: Callable[..., Path]) -> None:
    made = report(make_run(), [])
    assert "Where the time goes" not in made.markdown + made.html


def test_reasons_alone(make_run: Callable[..., Path]) -> None:
    missing = LayerProfile(
        model="student", runner="tensorrt", provider="cuda", precision="fp16", batch=1, reason="no times of layers"
    )
    markdown = report(make_run(), [missing]).markdown
    assert "No profile of student, TensorRT, CUDA, fp16: no times of layers" in markdown


def test_the_shares_stand_in_the_rows_of_the_csv_that_were_profiled(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    document = read_document(folder / "benchmark.json", BenchmarkDocument)
    timed = next(row for row in document.rows if row.runner == "onnxruntime")
    keys = ("model", "runner", "provider", "precision", "batch", "threads")
    profile = make("int8", NODES, 1.0).model_copy(update={key: getattr(timed, key) for key in keys})
    rows = list(csv.DictReader(io.StringIO(report(folder, [profile]).csv)))
    profiled = [row for row in rows if row["quantize_share"]]
    assert 0 < len(profiled) < len(rows)
    for row in profiled:
        assert {key: row[key] for key in keys} == {key: str(getattr(timed, key)) for key in keys}
        assert (float(row["quantize_share"]), float(row["reformat_share"])) == (0.41, 0.0)
