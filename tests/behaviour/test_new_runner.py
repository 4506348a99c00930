"""A runner is added in three places: its adapter, its row in `FINDERS`, its name. Both flows then take it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import bundle_support
import pytest
from device_support import expected_logits, make_device_bundle

from dskd_export.benchmark.plan import plan_benchmark
from dskd_export.benchmark.run import benchmark, draw_images
from dskd_export.bundle import Bundle, open_bundle
from dskd_export.documents.runner_name import RunnerName
from dskd_export.provenance import Stopwatch
from dskd_export.runtime import loader
from dskd_export.runtime.loader import Loader, ModelSettings
from dskd_export.runtime.runner import Array, RunnerFacts
from dskd_export.settings import BenchmarkSettings, BudgetSettings, ValidateSettings
from dskd_export.validation.run import validate_bundle

NAME = RunnerName("numpy:cpu:fp32")
PROVENANCE = partial(Stopwatch().provenance, seed=0, recipe_sha256="0" * 64)


class NumpyRunner(nullcontext["NumpyRunner"]):
    """The adapter: the classifier of `bundle_support`, by numpy."""

    name = NAME
    facts = RunnerFacts("numpy", "2", "cpu", "fp32", threads=1)

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return {"logits": expected_logits(feeds["input"], *bundle_support.make_head())}

    def __enter__(self) -> NumpyRunner:
        return self


class NumpyLoader(Loader):
    def open(self, batches: Sequence[int], *, threads: int | None = None, streams: int = 1) -> NumpyRunner:
        return NumpyRunner()


def find_numpy(bundle: Bundle, engines: Path, settings: ModelSettings) -> list[Loader]:
    return [NumpyLoader(name=NAME, spec=bundle.spec)]


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setitem(loader.FINDERS, "numpy", find_numpy)
    return open_bundle(make_device_bundle(tmp_path))


def test_it_is_validated(bundle: Bundle) -> None:
    settings = ValidateSettings().model_copy(update={"runners": ("numpy",)})
    document = validate_bundle(
        bundle,
        bundle.folder / "engines",
        settings,
        BudgetSettings(),
        None,
        0.0,
        provenance=PROVENANCE,
        on_images=lambda _: None,
        warn=lambda _: None,
    )
    assert [(one.runner, one.verdict) for one in document.judgements] == [(NAME, "PASS")]
    assert document.reference == "golden.npz"


def test_it_is_timed(bundle: Bundle) -> None:
    settings = BenchmarkSettings(batches=(1,), min_seconds=0.001, min_iterations=10, max_warmup_seconds=0.01)
    plan = plan_benchmark(bundle, settings.model_copy(update={"runners": ("numpy",)}), bundle.folder / "engines")
    document, _ = benchmark(
        plan,
        *draw_images(None, 1, 0),
        BudgetSettings(),
        None,
        seed=0,
        provenance=PROVENANCE,
        on_step=lambda: None,
        on_status=lambda _: None,
    )
    assert [(row.runner, row.latency is not None) for row in document.rows] == [("numpy", True)] * 2
