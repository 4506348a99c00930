from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from run_support import QUIET, SMALL, Finished, small_recipe

from dskd_compress.run_folder import RunFolder
from dskd_compress.stages.benchmark import benchmark_bundle, run_benchmark
from dskd_export.benchmark import cells as cells_module
from dskd_export.documents.base import StageRecord, read_document
from dskd_export.documents.benchmark import BenchmarkDocument
from dskd_export.errors import DataError, EnvironmentProblem

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
QUICK = ["benchmark.min_seconds=0.001", "benchmark.max_warmup_seconds=0.01"]
ONE_CELL = [
    "benchmark.batches=[1]",
    "benchmark.runners=[torch]",
    "benchmark.providers=[cpu]",
    *QUICK,
]


@dataclass
class Timed:
    """A benchmark, the folder of its results, and what had to be timed."""

    folder: Path
    document: BenchmarkDocument
    models: set[tuple[str, str]]


@pytest.fixture(scope="module", params=["run", "bundle"])
def timed(request: pytest.FixtureRequest, finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Timed:
    """The same flow with both sources: teacher and student with torch, and the bundle of that run without."""
    folder, models = finished.folder.path, set(product(("teacher", "student"), ("torch", "onnxruntime")))
    if request.param == "bundle":
        folder, models = tmp_path_factory.mktemp("results"), {("student", "onnxruntime")}
        keys = SMALL["benchmark"].items()
        benchmark_bundle(finished.folder.bundle, [f"benchmark.{k}={v}" for k, v in keys], None, folder, QUIET)
    return Timed(folder, read_document(folder / "benchmark.json", BenchmarkDocument), models)


@no_gpu
def test_every_cell_is_there_once(timed: Timed) -> None:
    found = [(row.model, row.runner, row.provider, row.batch, row.part) for row in timed.document.rows]
    parts = product(timed.models, (1, 2), ("engine", "with_preprocessing"))
    assert sorted(found) == sorted((*model, "cpu", batch, part) for model, batch, part in parts)
    assert len(found) == 4 * len(timed.models)


def test_every_cell_is_measured(timed: Timed) -> None:
    for row in timed.document.rows:
        assert row.latency is not None
        assert row.latency.iterations >= 10
        assert row.throughput_images_per_s == pytest.approx(row.batch * 1e3 / row.latency.mean_ms)
        assert (row.precision, row.threads, row.unavailable) == ("fp32", 1, "")
        assert row.load_ms is not None
        assert row.load_ms > 0
        assert row.first_inference_ms is not None
        assert row.first_inference_ms > 0
        assert row.latency.stable or row.latency.reason
        assert len(row.breakdown) == (0 if row.part == "engine" else 7)


def test_every_row_says_what_it_costs_or_why_not(timed: Timed) -> None:
    for row in timed.document.rows:
        assert row.energy is not None
        assert row.energy_per_image_mj == row.energy.per_image_mj
        assert row.energy_reason == row.energy.reason
        assert (row.energy_per_image_mj is None) == bool(row.energy_reason)
        assert row.telemetry is not None
        assert row.telemetry.samples >= 0
        assert row.memory is not None
        assert (row.size_mb is None) == (row.runner == "torch")


def test_the_samples_are_those_of_the_rows(timed: Timed) -> None:
    with np.load(timed.folder / "benchmark.samples.npz", allow_pickle=False) as archive:
        samples = dict(archive)
    rows = timed.document.rows
    assert {row.samples_key for row in rows} == set(samples)
    assert len(samples) == len(rows)
    for row in rows:
        assert row.samples_key is not None
        assert row.latency is not None
        milliseconds = samples[row.samples_key] * 1e3
        assert len(milliseconds) == row.latency.iterations
        assert row.latency.mean_ms == pytest.approx(milliseconds.mean())
        assert row.latency.min_ms == pytest.approx(milliseconds.min())
        assert row.latency.p50_ms == pytest.approx(np.percentile(milliseconds, 50), rel=0.2)
        assert (samples[row.samples_key] > 0).all()


def test_the_record(timed: Timed, finished: Finished) -> None:
    record = read_document(timed.folder / "stages/benchmark.json", StageRecord)
    assert record.inputs["bundle/manifest.json"] == timed.document.bundle_sha256
    assert set(record.outputs) == {"benchmark.json", "benchmark.samples.npz"}
    assert record.provenance == timed.document.provenance
    assert timed.document.provenance.device.device in ("cpu", "cuda:0")
    assert timed.document.provenance.seed == finished.recipe.seed
    if len(timed.models) > 1:
        assert {"teacher.fp32.onnx", "student.safetensors", "teacher.safetensors"} <= set(record.inputs)
        assert timed.document.images == ""
    else:
        assert "noise of 500x375 pixels" in timed.document.images


def test_the_size_of_a_teacher_counts_its_weights_file(finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    (folder / "teacher.fp32.onnx.data").write_bytes(bytes(3_000_000))
    keys = ["benchmark.batches=[1]", "benchmark.runners=[onnxruntime]", *QUICK]
    document = run_benchmark(small_recipe(*keys), folder, QUIET)
    sizes = {row.model: row.size_mb for row in document.rows}
    assert sizes["teacher"] == pytest.approx(3 + (folder / "teacher.fp32.onnx").stat().st_size / 1e6)
    assert sizes["student"] == pytest.approx((folder / "bundle/model.fp32.onnx").stat().st_size / 1e6)


def test_preprocessing_is_part_of_one_and_not_of_the_other(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Counted, since times of milliseconds on a busy machine prove nothing."""
    calls: list[int] = []
    real = cells_module.preprocess_batch

    def counted(images, spec):  # type: ignore[no-untyped-def]
        calls.append(len(images))
        return real(images, spec)

    monkeypatch.setattr(cells_module, "preprocess_batch", counted)
    folder = finished.copy(tmp_path / "run")
    document = run_benchmark(small_recipe(*ONE_CELL, "benchmark.teacher=false"), folder, QUIET)
    engine, whole = document.rows
    assert (engine.part, whole.part) == ("engine", "with_preprocessing")
    assert engine.latency is not None
    assert whole.latency is not None
    timed = whole.latency.iterations + whole.latency.warmup_iterations
    assert len(calls) == pytest.approx(1 + timed, abs=1)  # once for the engine, then once a call
    assert set(calls) == {1}


def test_a_batch_larger_than_the_validation_set(finished: Finished, tmp_path: Path) -> None:
    """The images are taken in turn."""
    np.savez(tmp_path / "few.npz", x=np.arange(20 * 64, dtype=np.uint8).reshape(20, 8, 8), y=np.arange(20) % 10)
    folder = finished.copy(tmp_path / "run")
    recipe = small_recipe(
        *ONE_CELL, "benchmark.teacher=false", "benchmark.batches=[13]", f"data.source={tmp_path / 'few.npz'}"
    )
    document = run_benchmark(recipe, folder, QUIET)
    assert {row.batch for row in document.rows} == {13}


def test_unreadable_images_are_tolerated_as_the_recipe_says(finished: Finished, tmp_path: Path) -> None:
    for split, name in product(("train", "val"), "0123456789"):
        (tmp_path / "images" / split / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / split / name / "0.png")
        (tmp_path / "images" / split / name / "1.png").symlink_to("/not/mounted/1.png")
    folder = finished.copy(tmp_path / "run")
    keys = [*ONE_CELL, "benchmark.teacher=false", "benchmark.batches=[20]", f"data.source={tmp_path / 'images'}"]
    with pytest.raises(DataError, match=r"data\.max_unreadable tolerates"):
        run_benchmark(small_recipe(*keys), folder, QUIET)
    document = run_benchmark(small_recipe(*keys, "data.max_unreadable=0.5"), folder, QUIET)
    assert {row.batch for row in document.rows} == {20}


@no_gpu
@pytest.mark.parametrize(
    ("runner", "said"),
    [
        ("torch", r"names cuda, which torch lacks here \(it has cpu\)"),
        ("onnxruntime", "Provider cuda is not available.*can use cpu here"),
    ],
)
def test_a_provider_that_is_not_there(runner: str, said: str, finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    before = (folder / "benchmark.json").read_bytes()
    recipe = small_recipe("benchmark.providers=[cuda]", f"benchmark.runners=[{runner}]")
    with pytest.raises(EnvironmentProblem, match=said):
        run_benchmark(recipe, folder, QUIET)
    assert (folder / "benchmark.json").read_bytes() == before


def test_a_teacher_that_was_not_exported(finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    (folder / "teacher.fp32.onnx").unlink()
    with pytest.raises(DataError, match=r"teacher\.fp32\.onnx is missing.*export\.teacher.*benchmark\.teacher"):
        run_benchmark(finished.recipe, folder, QUIET)
    # torch alone does not need it
    document = run_benchmark(small_recipe(*ONE_CELL), folder, QUIET)
    assert {row.model for row in document.rows} == {"teacher", "student"}


def test_there_is_no_bundle_yet(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"manifest\.json is missing.*dskd-compress export"):
        run_benchmark(small_recipe(), RunFolder(tmp_path), QUIET)
