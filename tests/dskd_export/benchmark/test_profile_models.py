"""Profiles in a benchmark: each model once, apart from the timed calls, with a reason where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import bundle_support
import pytest
from PIL import Image

from dskd_export.benchmark.cells import PARTS
from dskd_export.benchmark.plan import BenchmarkPlan, plan_benchmark
from dskd_export.benchmark.profile_models import choose_batch, count_calls, profile_models
from dskd_export.benchmark.run import benchmark
from dskd_export.benchmark.store import open_store
from dskd_export.bundle import Bundle, open_bundle, write_bundle
from dskd_export.documents.base import Interval
from dskd_export.documents.benchmark import BenchmarkDocument, BenchmarkRow, Latency, LayerProfile
from dskd_export.errors import ModelError
from dskd_export.provenance import Stopwatch
from dskd_export.runtime.layer_times import ProfiledCalls, TimedLayer
from dskd_export.runtime.loader import Loader, OnnxLoader
from dskd_export.runtime.runner import Array
from dskd_export.settings import BenchmarkSettings, BudgetSettings
from dskd_export.telemetry.monitor import Monitor

SETTINGS = BenchmarkSettings(providers=("cpu",), batches=(1, 2), threads=(1,), min_seconds=0.01, profile=True)
IMAGES = [Image.new("RGB", (20, 16))]
LATENCY = Latency(
    **dict.fromkeys(("p50_ms", "p90_ms", "p95_ms", "p99_ms", "p999_ms", "mean_ms"), 0.5),
    min_ms=0.4,
    max_ms=0.6,
    coefficient_of_variation=0.1,
    iterations=10,
    warmup_iterations=3,
    stable=True,
)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    write_bundle(tmp_path / "bundle", **bundle_support.bundle_arguments())
    return open_bundle(tmp_path / "bundle")


@pytest.fixture
def plan(bundle: Bundle, tmp_path: Path) -> BenchmarkPlan:
    return plan_benchmark(bundle, SETTINGS, tmp_path / "engines")


def make_rows(plan: BenchmarkPlan, **changes: Any) -> list[BenchmarkRow]:
    """Rows as if every cell took 0.5 ms."""
    times = {"latency": LATENCY, "throughput_images_per_s": 2000.0, **changes}
    return [
        BenchmarkRow(**cell.columns, threads=cell.threads, part=part, **times)
        for cell in plan.cells(SETTINGS.batches)
        for part in PARTS
    ]


def profile(plan: BenchmarkPlan, batch: int = 1, **changes: Any) -> list[LayerProfile]:
    return profile_models(plan, make_rows(plan, **changes), IMAGES, batch, lambda: None, lambda _: None)


def test_each_model_once_with_its_latency_without_a_profiler(plan: BenchmarkPlan) -> None:
    interval = Interval(value=0.5, low=0.45, high=0.55)
    timed = LATENCY.model_copy(update={"intervals_ms": {"p50": interval}})
    found = profile(plan, batch=2, latency=timed)
    assert [one.precision for one in found] == [loader.name.precision for _, loader in plan.models]
    assert len(found) == 3
    for one in found:
        assert (one.batch, one.threads, one.reason, one.latency_p50_ms) == (2, 1, "", interval)
        assert one.sum_ms is not None
        assert sum(row.share for row in one.operators) == pytest.approx(1)
        assert 3 <= one.calls <= 50
    without = profile(plan)[0].latency_p50_ms
    assert without == Interval(value=0.5, low=0.4, high=0.6), "between all calls, where too few give an interval"


def test_of_several_streams_there_is_no_latency_of_a_call_alone(plan: BenchmarkPlan) -> None:
    assert {one.latency_p50_ms for one in profile(plan, streams=4)} == {None}


def test_what_was_not_timed_is_not_profiled(plan: BenchmarkPlan) -> None:
    found = profile(plan, latency=None, throughput_images_per_s=None, unavailable="there is no kernel")
    assert {(one.sum_ms, one.reason) for one in found} == {(None, "there is no kernel")}


def test_in_a_benchmark(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Monitor, "measure_idle", lambda self: None)
    quick = {"precisions": ("fp32",), "batches": (2,), "min_iterations": 10, "max_warmup_seconds": 0.01}
    for wanted in (True, False):
        settings = SETTINGS.model_copy(update={**quick, "profile": wanted})
        steps: list[str] = []
        one = plan_benchmark(bundle, settings, bundle.folder / "engines")
        document, _ = benchmark(
            one,
            IMAGES,
            "one of them",
            BudgetSettings(batch=1),
            None,
            seed=7,
            provenance=partial(Stopwatch().provenance, seed=7, recipe_sha256="0" * 64),
            on_step=partial(steps.append, "step"),
            on_status=lambda _: None,
        )
        assert len(steps) == one.steps == len(document.rows) + len(document.profiles)
        assert [found.batch for found in document.profiles] == [2] * wanted
    before = document.model_dump(mode="json")
    del before["profiles"]
    assert BenchmarkDocument.model_validate(before) == document, "a file of before there were profiles"
    assert not BenchmarkSettings().profile


class Planted(OnnxLoader):
    """A model whose profile is given, or fails."""

    def profile(
        self, feeds: Mapping[str, Array], *, calls: int, warmup_calls: int, threads: int | None = None
    ) -> ProfiledCalls:
        if self.name.precision == "int8":
            raise ModelError("The profile of ONNX Runtime cannot be used: it is cut off.")
        (images,) = feeds.values()
        layers = [TimedLayer("conv", "Conv", float(len(images))), TimedLayer("cast", "Cast", 1.0)]
        return ProfiledCalls([layers] * calls, [1.0] * calls, "planted")


def plant(bundle: Bundle, plan: BenchmarkPlan, kind: type[Loader]) -> BenchmarkPlan:
    models = [
        (role, kind(name=one.name, spec=one.spec, read=partial(bundle.model, one.name.precision)))  # type: ignore[call-arg]
        for role, one in plan.models
    ]
    return replace(plan, models=models)


def test_a_profile_that_fails_is_a_reason(plan: BenchmarkPlan, bundle: Bundle) -> None:
    found = {one.precision: one for one in profile(plant(bundle, plan, Planted), batch=2)}
    assert found["int8"].sum_ms is None
    assert "cut off" in found["int8"].reason
    assert found["fp32"].operators[0].p50_us == 2.0, "two images"


def test_a_runner_without_a_profiler_says_so(plan: BenchmarkPlan, bundle: Bundle) -> None:
    class Unprofiled(OnnxLoader):
        profile = Loader.profile

    assert all("not profiled" in one.reason for one in profile(plant(bundle, plan, Unprofiled)))


@pytest.mark.parametrize(
    ("latency_s", "seconds", "expected"),
    [(0.001, 0.7, (3, 50)), (0.02, 0.7, (3, 32)), (0.1, 0.75, (3, 4)), (0.3, 0.7, (1, 3)), (0.0, 0.7, (3, 50))],
)
def test_as_many_calls_as_fit(latency_s: float, seconds: float, expected: tuple[int, int]) -> None:
    assert count_calls(latency_s, seconds) == expected


def test_the_batch_that_the_budget_judges() -> None:
    assert (choose_batch((1, 8), 8), choose_batch((4, 8), 1)) == (8, 4)


def test_a_profile_that_is_added_keeps_the_finished_cells(tmp_path: Path) -> None:
    plain = SETTINGS.model_copy(update={"profile": False})
    open_store(tmp_path, "0" * 64, plain).put("key", [], {})
    assert open_store(tmp_path, "0" * 64, SETTINGS).get("key") == ([], {})
    other = SETTINGS.model_copy(update={"min_seconds": 9.0})
    assert open_store(tmp_path, "0" * 64, other).get("key") is None
