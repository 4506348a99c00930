"""The one flow, on the models of a bundle and on models that cannot be run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import bundle_support
import numpy as np
import pytest
from PIL import Image

from dskd_export.benchmark.cells import Samples
from dskd_export.benchmark.plan import BenchmarkPlan, plan_benchmark
from dskd_export.benchmark.run import benchmark, draw_images
from dskd_export.bundle import Bundle, open_bundle, write_bundle
from dskd_export.documents.benchmark import BenchmarkDocument
from dskd_export.documents.runner_name import RunnerName
from dskd_export.errors import DataError, EnvironmentProblem, ProviderLacksKernel
from dskd_export.provenance import Stopwatch
from dskd_export.runtime.labelled_images import LabelledImages
from dskd_export.runtime.loader import OnnxLoader
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner
from dskd_export.runtime.runner import Runner
from dskd_export.settings import BenchmarkSettings, BudgetSettings

SETTINGS = BenchmarkSettings(
    providers=("cpu",), batches=(2,), min_seconds=0.001, min_iterations=10, max_warmup_seconds=0.01
)
IMAGES = [Image.new("RGB", (20, 16))]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    write_bundle(tmp_path / "bundle", **bundle_support.bundle_arguments())
    return open_bundle(tmp_path / "bundle")


def run(plan: BenchmarkPlan, **budget: float) -> tuple[BenchmarkDocument, Samples, list[str]]:
    steps: list[str] = []
    document, samples = benchmark(
        plan,
        IMAGES,
        "one of them",
        BudgetSettings(batch=2, **budget),  # type: ignore[arg-type]
        None,
        seed=7,
        provenance=partial(Stopwatch().provenance, seed=7, recipe_sha256="0" * 64),
        on_step=lambda: steps.append("step"),
        on_status=lambda _: None,
    )
    return document, samples, steps


def plan_student(bundle: Bundle, *precisions: str, provider: str = "cpu", lacking: str = "") -> BenchmarkPlan:
    """A plan of some models on the CPU, named after a provider; for one there is no kernel."""

    class OnCpu(OnnxLoader):
        def open(self, batches: Sequence[int], *, threads: int | None = None, streams: int = 1) -> Runner:
            if self.name.precision == lacking:
                raise ProviderLacksKernel(f"no kernel for {lacking}")
            return OnnxRuntimeRunner(self.read(), provider="cpu")

    loaders = [
        OnCpu(
            name=RunnerName.of("onnxruntime", provider, precision),
            spec=bundle.spec,
            read=partial(bundle.model, precision),
        )
        for precision in precisions
    ]
    return BenchmarkPlan(bundle, SETTINGS, [("student", loader) for loader in loaders])


def test_the_document(bundle: Bundle) -> None:
    plan = plan_benchmark(bundle, SETTINGS.model_copy(update={"precisions": ("fp32",)}), Path("engines"))
    document, samples, steps = run(plan, latency_p99_ms=60_000)
    assert len(steps) == plan.steps == len(document.rows) == 2
    assert set(samples) == {row.samples_key for row in document.rows}
    assert (document.bundle_sha256, document.images) == (bundle.sha256, "one of them")
    assert (document.provenance.seed, document.provenance.device.device) == (7, "cpu")
    (judgement,) = document.judgements
    assert [check.verdict for check in judgement.checks] == ["PASS"]


def test_a_model_without_a_kernel_stays_empty_and_one_with_alone_is_no_error(bundle: Bundle) -> None:
    rows = run(plan_student(bundle, "fp32", "int8", lacking="int8"))[0].rows
    assert [(row.precision, row.unavailable) for row in rows if row.latency is None] == [
        ("int8", "no kernel for int8")
    ] * 2
    assert [row.precision for row in rows if row.latency is not None] == ["fp32"] * 2


def test_nothing_that_can_be_timed_is_an_error(bundle: Bundle) -> None:
    plan = plan_student(bundle, "int8", lacking="int8")
    with pytest.raises(EnvironmentProblem, match="onnxruntime:cpu:int8: no kernel for int8"):
        run(plan)


def test_the_device_of_the_tensorrt_provider_is_the_gpu(bundle: Bundle) -> None:
    document = run(plan_student(bundle, "fp32", provider="tensorrt"))[0]
    assert {row.provider for row in document.rows if row.latency is not None} == {"tensorrt"}
    assert document.provenance.device.device == "cuda:0"


def test_noise_is_drawn_by_the_seed() -> None:
    first, second, other = (draw_images(None, 3, seed) for seed in (1, 1, 2))
    assert "noise" in first[1]
    assert first[0][0].tobytes() == second[0][0].tobytes() != other[0][0].tobytes()


def test_unreadable_images_are_an_error_whatever_is_tolerated(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(b"no image")
    labelled = LabelledImages(tmp_path, ("0.png", "1.png"), np.zeros(2, np.int64), ("a",))
    assert len(draw_images(labelled, 1, 0)[0]) == 1
    with pytest.raises(DataError, match=r"1\.png"):
        draw_images(labelled, 2, 0)
