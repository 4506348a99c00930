from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from run_support import Finished

from dskd_compress.cli import main
from dskd_export.documents.base import read_document
from dskd_export.documents.benchmark import BenchmarkDocument

pytestmark = pytest.mark.usefixtures("no_document_yet")

FAST = [
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


def test_it_times(finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished.copy(tmp_path / "run")
    assert main(["benchmark", str(folder.path), *FAST, "--json"]) == 0
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
    assert err.count("UNSTABLE") == sum(not row.latency.stable for row in document.rows if row.latency)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_provider_that_is_not_there(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", str(finished.folder.path), "--set", "benchmark.providers=[cuda]", "--json"]) == 4
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["kind"], error["exit_code"]) == ("EnvironmentProblem", 4)
    assert "benchmark.providers names cuda" in error["message"]
    assert "benchmark.providers" in error["hint"]
