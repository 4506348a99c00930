"""The benchmark command: budget, baseline, scenarios, interruptions and old flags, on a bundle and a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from device_support import make_device_bundle
from run_support import Finished

from dskd_compress import console
from dskd_compress.cli import main
from dskd_compress.commands.benchmark_options import replace_old_flags
from dskd_compress.console import Output
from dskd_compress.recipe import bundle_settings
from dskd_export.benchmark import cells as cells_module
from dskd_export.benchmark.unstable import list_unstable_reasons
from dskd_export.documents.base import read_document
from dskd_export.documents.benchmark import BenchmarkDocument
from dskd_export.telemetry.host import device_name

QUICK = [
    word
    for change in ("min_seconds=0.02", "min_iterations=50", "max_warmup_seconds=0.05", "scenario_seconds=0.02")
    for word in ("--set", f"benchmark.{change}")
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_device_bundle(tmp_path_factory.mktemp("device"))


@pytest.fixture(autouse=True)
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "_document_written", False)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    shutil.copytree(made, "bundle")


def run(*flags: str, code: int = 0) -> BenchmarkDocument:
    command = ["benchmark", "bundle", "--out", "out", "--provider", "cpu", "--batch", "1"]
    assert main([*command, "--set", "benchmark.threads=1", *QUICK, *flags]) == code
    return read_document(Path("out/benchmark.json"), BenchmarkDocument)


def test_a_budget_that_nothing_meets(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "steps.md")
    Path("steps.md").write_text("# before\n")
    budget = ["--set", "budget.latency_p99_ms=0.000001"]
    document = run(*budget, "--junit", "speed.xml", "--summary", "mine.md", code=5)
    assert {one.precision for one in document.judgements} == {"fp32", "int8"}
    error = capsys.readouterr().err
    assert "No model meets the budget: onnxruntime:cpu:fp32, batch 1: p99 latency (ms) is " in error
    tree = ElementTree.parse("speed.xml").getroot()
    assert (tree.get("tests"), tree.get("failures")) == ("2", "2")
    assert Path("steps.md").read_text().startswith("# before\n## Benchmark on ")
    assert "### Budget" in Path("mine.md").read_text()
    run(*budget, "--report-only")


def test_a_budget_of_this_device_alone() -> None:
    loose = ["--set", "budget.latency_p99_ms=60000"]
    assert {check.verdict for one in run(*loose).judgements for check in one.checks} == {"PASS"}
    for name, code in ((device_name(), 5), ("x", 0)):
        run(*loose, "--set", f"budget.devices={{{name}: {{latency_p99_ms: 1.0e-6}}}}", code=code)


def test_a_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    run()
    document = json.loads(Path("out/benchmark.json").read_text())
    for row in document["rows"]:
        for name in ("p50", "p99"):
            row["latency"][f"{name}_ms"] /= 100
            row["latency"]["intervals_ms"].pop(name, None)
    Path("fast.json").write_text(json.dumps(document))
    run("--baseline", "fast.json", code=5)
    assert "Slower than the baseline: onnxruntime:cpu:fp32, batch 1: p50 against the baseline is " in (
        capsys.readouterr().err
    )
    document["provenance"]["device"]["cpu"] = "another"
    Path("other.json").write_text(json.dumps(document))
    shutil.rmtree("out")
    assert main(["benchmark", "bundle", "--out", "out", *QUICK, "--baseline", "other.json"]) == 2
    assert not Path("out").exists(), "told before anything is timed"


def test_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    document = run(
        *("--precision", "fp32", "--set", "benchmark.scenarios=[all]"),
        *("--set", "benchmark.server_bound_ms=1000"),
    )
    found = {one.scenario: one for one in document.scenarios}
    assert list(found) == ["SingleStream", "MultiStream", "Server", "Offline"]
    assert all(one.value is not None and one.value.value > 0 for one in found.values())
    assert [one.batch for one in found.values()] == [1, 8, 1, 1]
    assert found["Server"].bound_ms == 1000
    # No queue serves more than the model can.
    assert found["Server"].value.value <= 1.5e3 / found["SingleStream"].value.value  # type: ignore[union-attr]
    assert "SingleStream" in capsys.readouterr().out


def test_where_the_time_goes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    document = run("--profile")
    assert [(one.precision, one.batch, one.threads) for one in document.profiles] == [
        ("fp32", 1, 1),
        ("int8", 1, 1),
    ]
    text = capsys.readouterr().out
    for one in document.profiles:
        assert one.sum_ms is not None
        assert one.slowest[0].name in text
        assert one.summary in text
    assert main(["report", "out"]) == 0
    markdown = Path("out/report.md").read_text()
    assert "## Where the time goes" in markdown
    assert all(one.slowest[0].name in markdown for one in document.profiles)
    assert run().profiles == []


def test_a_grid_with_all_facts_of_a_row() -> None:
    document = run("--precision", "fp32", "--set", "benchmark.threads=[1,2]")
    engines = [row for row in document.rows if row.part == "engine"]
    assert [row.threads for row in engines] == [1, 2]
    assert len({row.samples_key for row in document.rows}) == 4
    row = document.rows[1]
    assert (row.part, len(row.breakdown)) == ("with_preprocessing", 7)
    assert document.rows[0].breakdown == []
    assert row.memory is not None
    assert row.memory.resident_mb is not None
    assert row.memory.device_reason == "it runs on the CPU"
    assert row.size_mb is not None


def test_what_was_interrupted_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[str] = []
    real = cells_module._measure

    def counted(cell, *rest):  # type: ignore[no-untyped-def]
        if len(timed) == 1 and not Path("went on").exists():
            raise KeyboardInterrupt
        timed.append(cell.key)
        return real(cell, *rest)

    monkeypatch.setattr(cells_module, "_measure", counted)
    command = ["benchmark", "bundle", "--out", "out", "--provider", "cpu", "--batch", "1", *QUICK]
    assert main(command) == 130
    assert not Path("out/benchmark.json").exists()
    Path("went on").touch()
    assert main(command) == 0
    assert timed == ["student-onnxruntime-cpu-fp32-b1", "student-onnxruntime-cpu-int8-b1"]
    assert not Path("out/benchmark.partial").exists()
    document = read_document(Path("out/benchmark.json"), BenchmarkDocument)
    assert len([row for row in document.rows if row.latency is not None]) == 4


def test_commas_and_repeated_flags_are_the_same() -> None:
    for batches in (["--batch", "1,3"], ["--batch", "1", "--batch", "3"]):
        command = ["benchmark", "bundle", "--out", "out", "--fresh", "--precision", "fp32", "--device", "cpu"]
        assert main([*command, *batches, *QUICK]) == 0
        rows = read_document(Path("out/benchmark.json"), BenchmarkDocument).rows
        assert [(row.batch, row.provider) for row in rows[::2]] == [(1, "cpu"), (3, "cpu")]


@pytest.mark.parametrize(
    ("old", "flag", "key"),
    [
        ({"threads": ["1", "2,3"]}, "--threads", "benchmark.threads=[1,2,3]"),
        ({"scenarios": ["Offline"]}, "--scenario", "benchmark.scenarios=[Offline]"),
        ({"streams": ["4"]}, "--streams", "benchmark.streams=[4]"),
        ({"cross_check": ["trtexec"]}, "--cross-check", "benchmark.cross_check=trtexec"),
    ],
)
def test_old_flags_name_the_key_that_replaces_them(
    old: dict[str, list[str]], flag: str, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = replace_old_flags(Output(json_output=False), **old)
    assert f"{flag} is deprecated; use: --set '{key}'" in capsys.readouterr().err
    assert bundle_settings(changes) == bundle_settings([key]) != bundle_settings([])


def test_an_old_flag_still_works(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["benchmark", "bundle", "--out", "out", "--precision", "fp32", "--batch", "1", *QUICK]
    assert main([*command, "--threads", "1", "--json"]) == 0
    out, err = capsys.readouterr()
    assert {row["threads"] for row in json.loads(out)["rows"]} == {1}
    assert "--set 'benchmark.threads=[1]'" in err


def test_the_help_fits_on_a_screen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    for command in ("benchmark", "ab", "fleet"):
        assert main([command, "--help"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) <= 40
        assert 8 <= sum("│ --" in line for line in lines) <= 14
        assert not any(old in line for line in lines for old in ("--threads", "--against", "--scenario"))


# --- a run


FAST_RUN = [
    word
    for change in (
        "min_seconds=0.001",
        "max_warmup_seconds=0.01",
        "teacher=false",
        "batches=[3]",
        "providers=[cpu]",
    )
    for word in ("--set", f"benchmark.{change}")
]


def test_a_run(finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished.copy(tmp_path / "run")
    assert main(["benchmark", str(folder.path), *FAST_RUN, "--json"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    document = BenchmarkDocument.model_validate_json(out)
    assert document == read_document(folder / "benchmark.json", BenchmarkDocument)
    assert [(row.model, row.runner, row.batch) for row in document.rows[::2]] == [
        ("student", "torch", 3),
        ("student", "onnxruntime", 3),
    ]
    text = " ".join(err.split())
    assert "with preprocessing" in text
    assert f"{document.rows[0].throughput_images_per_s:.0f}" in text
    # A word in each row's cell, the reasons below the table.
    latencies = [row.latency for row in document.rows if row.latency]
    assert err.count("UNSTABLE: ") == len(list_unstable_reasons(latencies))
    assert err.count("UNSTABLE") >= sum(not latency.stable for latency in latencies)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_provider_that_a_run_lacks(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", str(finished.folder.path), "--set", "benchmark.providers=[cuda]", "--json"]) == 4
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["kind"], error["exit_code"]) == ("EnvironmentProblem", 4)
    assert "benchmark.providers names cuda" in error["message"]
    assert "benchmark.providers" in error["hint"]
