"""The choice between runs and devices, its table in three forms, and the names of the sources."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dskd_export.errors import DataError
from dskd_export.report import build_comparison, build_report, names_of
from dskd_export.report.choices import Source, best_of, choices
from dskd_export.report.csv_table import COLUMNS, csv_table
from dskd_export.report.decision import decide_between
from dskd_export.report.load import load_run


def sources_of(folders: list[Path]) -> list[Source]:
    return [Source(name, load_run(folder)) for name, folder in zip(names_of(folders), folders, strict=True)]


def test_accuracy_is_the_bundles_and_time_the_devices(matrix: list[Path]) -> None:
    found = choices(sources_of(matrix))
    orin = [one for one in found if "Orin" in one.device and one.source.startswith("dskd/")]
    assert {one.row.precision: (one.verdict, one.top1 is not None) for one in orin} == {
        "fp32": ("PASS", True),
        "fp16": ("PASS", True),
        "int8": ("NOT SHOWN", True),  # its accuracy is not shown on so few images
    }
    teachers = [one for one in found if one.role == "teacher"]
    assert teachers
    assert {one.verdict for one in teachers} == {"NOT JUDGED"}


def test_the_choice_is_the_fastest_that_passes(matrix: list[Path]) -> None:
    found = choices(sources_of(matrix))
    best = best_of(found)
    assert len(best) == 3  # the machine of the runs, and two devices
    for device, one in best.items():
        assert one is not None
        rivals = [r for r in found if r.device == device and r.verdict == "PASS" and r.row.runner != "torch"]
        assert one.row.latency is not None
        assert one.row.latency.p50_ms == min(r.row.latency.p50_ms for r in rivals if r.row.latency)
    decision = decide_between(sources_of(matrix), found, [])
    assert decision.verdict == "PASS"
    # Which precision of which run on which device.
    assert "fp16 of dskd on Cortex-A78AE, NVIDIA Jetson Orin Nano (" in decision.sentence
    assert decision.sentence.startswith("Ship fp32 of dskd on AMD EPYC 7B13 (Zen 3) (")
    assert decision.facts == ()
    assert decide_between(sources_of(matrix), found, ["validate of dskd"]).verdict == "STALE"


def test_nothing_passes_where_everything_fails(make_run: Callable[..., Path]) -> None:
    run = make_run(gate_passes=False)
    found = choices([Source("run", load_run(run))])
    assert set(best_of(found).values()) == {None}
    decision = decide_between([Source("run", load_run(run))], found, [])
    assert decision.verdict == "FAIL"
    assert decision.sentence.startswith("Do not ship on AMD EPYC 7B13 (Zen 3): run: ")


def test_a_missed_budget_fails_a_model(make_run: Callable[..., Path]) -> None:
    run = make_run()
    document = json.loads((run / "benchmark.json").read_text())
    row = next(r for r in document["rows"] if r["model"] == "student" and r["runner"] == "onnxruntime")
    check = {"name": "p99 latency (ms)", "value": 9.0, "limit": 5.0, "comparison": "<=", "verdict": "FAIL"}
    keys = ("model", "runner", "provider", "precision", "batch", "threads", "part")
    document["judgements"] = [{**{key: row[key] for key in keys}, "checks": [check]}]
    (run / "benchmark.json").write_text(json.dumps(document))
    (judged,) = [
        one
        for one in choices([Source("run", load_run(run))])
        if one.role == "student" and one.row.runner == "onnxruntime" and one.row.latency
    ]
    assert (judged.verdict, judged.reason) == ("FAIL", "p99 latency (ms) is 9, the limit is <= 5")


@pytest.mark.parametrize("runner", ["<b>", "a:b", "a:b:c:d", "onnxruntime:cpu:", ""])
def test_a_runner_that_no_validation_names(runner: str, make_run: Callable[..., Path], tmp_path: Path) -> None:
    sound, run = make_run(), tmp_path / "handed_in"
    shutil.copytree(sound, run)
    (run / "benchmark.json").unlink()  # what was validated and not timed has a row by its name alone
    document = json.loads((run / "validation.json").read_text())
    document["judgements"][0]["runner"] = runner
    (run / "validation.json").write_text(json.dumps(document))
    for build in (lambda: build_report(run), lambda: build_comparison([sound, run])):
        with pytest.raises(DataError, match=r"validation\.json.*judgements\.0\.runner"):
            build()


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["a/run"], ["run"]),
        (["a/run", "b/run"], ["a/run", "b/run"]),
        (["a/x/run", "b/x/run", "c"], ["a/x/run", "b/x/run", "c"]),
        (["runs/r18", "results/r18/orin", "results/r18/xeon"], ["r18", "orin", "xeon"]),
    ],
)
def test_names_are_as_short_as_they_can_be(folders: list[str], names: list[str]) -> None:
    assert names_of([Path("/", folder) for folder in folders]) == names


def test_csv_has_every_row_with_its_unit(matrix: list[Path]) -> None:
    report = build_comparison(matrix)
    rows = list(csv.DictReader(io.StringIO(report.csv)))
    assert list(rows[0]) == list(COLUMNS)
    expected = sum(len(json.loads((folder / "benchmark.json").read_text())["rows"]) for folder in matrix)
    assert len(rows) == expected
    orin = next(r for r in rows if r["source"] == "dskd/nvidia-jetson-orin-nano" and r["precision"] == "int8")
    document = json.loads((matrix[1] / "benchmark.json").read_text())
    int8 = next(r for r in document["rows"] if r["precision"] == "int8")
    assert float(orin["latency_p50_ms"]) == int8["latency"]["p50_ms"]
    assert float(orin["energy_per_image_mj_high"]) == int8["energy_per_image_mj"]["high"]
    assert (orin["verdict"], orin["stable"]) == ("NOT SHOWN", "true")
    absent = next(r for r in rows if r["not_measured_reason"])
    assert (absent["latency_p50_ms"], absent["not_measured_reason"]) == (
        "",
        "this ONNX Runtime has no CUDA provider",
    )


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"])
def test_a_spreadsheet_computes_no_text_of_the_csv(make_run: Callable[..., Path], sign: str) -> None:
    run = make_run()
    document = json.loads((run / "benchmark.json").read_text())
    timed = next(row for row in document["rows"] if row["latency"] is not None)
    timed["energy_per_image_mj"] = {"value": 0.25, "low": -0.5, "high": 1.0}
    timed["latency"]["reason"] = f"{sign}HYPERLINK(1)"
    (run / "benchmark.json").write_text(json.dumps(document))
    text = csv_table([Source(f"{sign}cmd|' /C calc'!A0", load_run(run))], [])
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    written = sign.replace("\r", "\n")
    assert {row["source"] for row in rows} == {f"'{written}cmd|' /C calc'!A0"}
    (row,) = [row for row in rows if row["energy_per_image_mj"]]
    assert (row["unstable_reason"], row["energy_per_image_mj_low"]) == (f"'{written}HYPERLINK(1)", "-0.5")
    assert float(row["latency_p50_ms"]) == timed["latency"]["p50_ms"]


def test_markdown_says_the_same(matrix: list[Path]) -> None:
    report = build_comparison(matrix, title="Four methods")
    assert report.markdown.startswith("# Four methods\n")
    headings = re.findall(r"^## (.+)$", report.markdown, re.MULTILINE)
    assert headings == [
        *("What to try next", "What can be shipped", "Models and methods", "Latency"),
        *("Provenance", "How to reproduce"),
    ]
    for word in ("dskd/nvidia-jetson-orin-nano", "PASS, best", "dskd-compress distill"):
        assert word in report.markdown


def test_a_bundle_in_several_places_has_one_accuracy(matrix: list[Path]) -> None:
    (matrix[1] / "validation.json").rename(matrix[1] / "validation.away")
    try:
        found = choices(sources_of(matrix))
        orin = [one for one in found if one.source == "dskd/nvidia-jetson-orin-nano"]
        assert all(one.top1 is not None for one in orin)
        assert {one.verdict for one in orin} == {"NOT JUDGED"}, "the device itself was not validated"
    finally:
        (matrix[1] / "validation.away").rename(matrix[1] / "validation.json")


def test_engines_are_listed(make_run: Callable[..., Path]) -> None:
    run = make_run()
    assert "dskd-compress build" in build_report(run).markdown
    document = {
        "backend": "tensorrt",
        "version": "10.3.0",
        "dskd_compress": "0.1.0",
        "system": "Linux aarch64",
        "gpu": None,
        "targets": ["sm87"],
        "precision": "fp16",
        "rest": "fp32",
        "opset": 20,
        "profiles": [{"smallest": 1, "best": 8, "largest": 8}],
        "flags": [],
        "optimization_level": 3,
        "hardware": "none",
        "version_compatible": False,
        "refit": "none",
        "stripped": False,
        "workspace_mb": None,
        "timing_cache": None,
        "build_seconds": 75.0,
        "peak_memory_mb": 900.0,
        "gpu_peak_memory_mb": None,
        "engine_bytes": 3_200_000,
        "engine_sha256": "a" * 64,
        "bundle_sha256": "b" * 64,
        "model_sha256": "c" * 64,
        "truth": {
            "source": "inspector",
            "layers": 40,
            "untyped_layers": 0,
            "types": [{"type": "fp16", "layers": 36, "layer_share": 0.9, "time_share": 0.96}],
            "reformat_layers": ["to fp16", "to fp32"],
            "reformat_layer_share": 0.05,
            "reformat_time_share": 0.03,
        },
    }
    path = run / "engines/orin/model.fp16.build.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(document))
    markdown = build_report(run).markdown
    assert "| orin/model.fp16 | tensorrt 10.3.0 | sm87 | 1 to 8 | fp16 90% of layers and 96% of time |" in markdown
    assert "| 2, 3.0 % of the time |" in markdown.replace("\u00a0", " ")
