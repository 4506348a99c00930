"""TensorRT's own tool next to our clock: explicit flags for each version, its summary, and its failures."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import engine_contract
import pytest
from engine_machines import classifier, make_machine  # fixtures
from engine_support import make_bundle

from dskd_compress import console
from dskd_compress.cli import main
from dskd_export.benchmark import trtexec as cross_check
from dskd_export.benchmark.trtexec import parse_latency
from dskd_export.documents.base import read_document
from dskd_export.documents.benchmark import BenchmarkDocument
from dskd_export.engine.builder import BuildSettings, build_engine
from dskd_export.engine.document import engines_folder
from dskd_export.runtime import tensorrt

__all__ = ["classifier", "make_machine"]

SUMMARY = """[11/29/2026-05:00:00] [I] === Performance summary ===
[11/29/2026-05:00:00] [I] Throughput: 147.20 qps
[11/29/2026-05:00:00] [I] Latency: min = 6.12 ms, max = 8.45 ms, mean = 6.79 ms, median = 6.75 ms, percentile(90%) = 7.02 ms, percentile(95%) = 7.15 ms, percentile(99%) = 7.35 ms
[11/29/2026-05:00:00] [I] Enqueue Time: min = 0.12 ms, max = 0.35 ms, mean = 0.18 ms, median = 0.17 ms, percentile(99%) = 0.3 ms
[11/29/2026-05:00:00] [I] H2D Latency: min = 0.1 ms, max = 0.2 ms, mean = 0.15 ms, median = 0.15 ms, percentile(99%) = 0.2 ms
[11/29/2026-05:00:00] [I] GPU Compute Time: min = 5.95 ms, max = 8.10 ms, mean = 6.55 ms, median = 6.50 ms, percentile(99%) = 7.1 ms
"""  # noqa: E501
TEN, ELEVEN, RTX = (
    next(name for name in engine_contract.SERVES["common.py"] if part in name)
    for part in ("bindings 10", "bindings 11", "rtx")
)
QUICK = [
    word
    for change in ("min_seconds=0.001", "min_iterations=10", "max_warmup_seconds=0.01")
    for word in ("--set", f"benchmark.{change}")
]


@pytest.fixture
def machine_of(make_machine, monkeypatch, tmp_path, classifier):
    """A machine with an fp32 engine of the bundle, and an empty path for its tools."""

    def make(generation):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(console, "_document_written", False)
        bundle = make_bundle(tmp_path / "bundle", classifier)
        machine = make_machine(generation)
        monkeypatch.setattr(tensorrt, "open_backend", lambda _: machine.backend)
        monkeypatch.setattr(tensorrt, "Cuda", lambda _: machine.cuda)
        settings = BuildSettings(batches=(1, 4))
        build_engine(bundle, "fp32", engines_folder(bundle.folder), settings, run=machine.run)
        (tmp_path / "bin").mkdir()
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        monkeypatch.setattr(cross_check, "_FOLDERS", ())
        return machine

    return make


def plant_tool(folder: Path, name: str, said: str, code: int = 0) -> Path:
    """A tool that writes down its arguments."""
    log = folder / "arguments"
    tool = folder / "bin" / name
    tool.write_text(
        "#!/bin/sh\n"
        f'for word in "$@"; do printf \'%s\\n\' "$word" >> {log}; done\n'
        f"/bin/cat <<'END'\n{said}\nEND\nexit {code}\n"
    )
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    return log


def benchmark(*flags: str) -> int:
    return main(["benchmark", "bundle", "--out", "out", "--runner", "tensorrt", "--batch", "4", *QUICK, *flags])


@pytest.mark.parametrize(
    ("generation", "tool", "given"),
    [
        (TEN, "trtexec", {"--useSpinWait", "--useCudaGraph"}),
        (ELEVEN, "trtexec", {"--includeDataTransfers"}),
        (RTX, "tensorrt_rtx", {"--includeDataTransfers"}),
    ],
)
def test_both_clocks_stand_side_by_side(generation, tool, given, machine_of, tmp_path, capsys):
    machine_of(generation)
    log = plant_tool(tmp_path, tool, SUMMARY)
    assert benchmark("--cross-check", "trtexec") == 0
    arguments = log.read_text().splitlines()
    (engine,) = tmp_path.glob("bundle.engines/*/model.fp32.engine")
    always = {
        f"--loadEngine={engine.relative_to(tmp_path)}",
        "--shapes=input:4x3x6x8",
        "--warmUp=200",
        "--duration=3",
        "--iterations=10",
        "--percentile=90,95,99",
    }
    assert set(arguments) == always | given
    document = read_document(Path("out/benchmark.json"), BenchmarkDocument)
    (check,) = document.cross_checks
    (row,) = [row for row in document.rows if row.part == "engine"]
    assert (check.p50_ms, check.p99_ms) == (6.75, 7.35)
    assert check.own_p50_ms == row.latency.p50_ms
    assert check.ratio == pytest.approx(row.latency.p50_ms / 6.75)
    assert check.command.startswith(f"{tool} --loadEngine=")
    assert "6.750" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("generation", "flag"),
    [(TEN, None), (ELEVEN, "--noCudaGraph"), (RTX, "--rtxCudaGraphStrategy=disable")],
)
def test_without_a_graph_there_is_none_there_either(generation, flag, machine_of):
    machine_of(generation)
    (engine,) = Path().glob("bundle.engines/*/model.fp32.engine")
    from dskd_export.bundle import open_bundle
    from dskd_export.engine.identity import read_engine

    document, _ = read_engine(engine)
    spec = open_bundle(Path("bundle")).spec
    given = cross_check.make_flags(document, engine, 1, spec, graph=False)
    assert not any("useCudaGraph" in word for word in given)
    assert flag is None or flag in given


def test_a_tool_that_is_missing_is_told_before_anything_is_timed(machine_of, capsys):
    machine_of(TEN)
    assert benchmark("--cross-check", "trtexec") == 4
    assert "trtexec is neither on the path" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_tool_that_fails_says_why(machine_of, tmp_path):
    machine_of(TEN)
    plant_tool(tmp_path, "trtexec", "[E] Error[1]: version tag does not match", 1)
    assert benchmark("--cross-check", "trtexec", "--json") == 0
    (check,) = json.loads(Path("out/benchmark.json").read_text())["cross_checks"]
    assert (check["p50_ms"], check["ratio"]) == (None, None)
    assert check["reason"] == "[E] Error[1]: version tag does not match"


def test_no_engine_to_check(classifier, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_bundle(tmp_path / "bundle", classifier)
    assert main(["benchmark", "bundle", "--out", "out", "--provider", "cpu", "--cross-check", "trtexec"]) == 4
    assert "There is no engine to cross-check" in capsys.readouterr().err


def test_the_summary_of_another_tool_is_none():
    assert parse_latency(SUMMARY) == (6.75, 7.35)
    assert parse_latency(SUMMARY.replace(" Latency: min", " Latency: avg")) is None
