"""Profile the models of a benchmark, in separate calls after the timed ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from PIL import Image

from dskd_export.benchmark.cells import Role, fill_batch
from dskd_export.benchmark.plan import BenchmarkPlan
from dskd_export.benchmark.profile import explain_slower, summarize_calls
from dskd_export.documents.base import Interval
from dskd_export.documents.benchmark import BenchmarkRow, LayerProfile
from dskd_export.errors import DataError, EnvironmentProblem, ModelError
from dskd_export.runtime.loader import Loader
from dskd_export.runtime.preprocess import preprocess_batch

PROFILE_SECONDS = 0.4
"""Time for the calls of a model, its warm-up counted, at the speed without a profiler, which can halve it."""

_FEWEST, _MOST = 3, 50
_SLOW_S = 0.1


def profile_models(
    plan: BenchmarkPlan,
    rows: Sequence[BenchmarkRow],
    images: Sequence[Image.Image],
    batch: int,
    on_step: Callable[[], object],
    on_status: Callable[[str], object],
) -> list[LayerProfile]:
    """Profile each model of a plan that was timed; one that was not, or cannot be profiled, has its reason.

    Args:
        plan: models and settings.
        rows: of the same plan, for the latency without a profiler.
        images: decoded; repeated to fill a batch.
        batch: images of a call.
        on_step: called after every model.
        on_status: called with what is profiled next.
    """
    profiles = []
    for role, loader in plan.models:
        on_status(f"profile of {role} {' '.join((loader.name.kind, loader.name.provider, loader.name.precision))}")
        profiles.append(
            _profile_model(role, loader, list(_find_rows(rows, role, loader, batch)), plan, images, batch)
        )
        on_step()
    return explain_slower(profiles)


def choose_batch(batches: Sequence[int], judged: int) -> int:
    """Choose the batch size to profile: the one that the budget judges if it is timed, else the first."""
    return judged if judged in batches else batches[0]


def _profile_model(
    role: Role,
    loader: Loader,
    rows: Sequence[BenchmarkRow],
    plan: BenchmarkPlan,
    images: Sequence[Image.Image],
    batch: int,
) -> LayerProfile:
    name = loader.name
    # With several streams a row has no latency of a call alone, and only the first count of threads is profiled.
    timed = min((row for row in rows if row.latency is not None), key=lambda row: row.streams, default=None)
    profile = LayerProfile(
        model=role,
        runner=name.kind,
        provider=name.provider,
        precision=name.precision,
        batch=batch,
        threads=None if timed is None else timed.threads,
        latency_p50_ms=None if timed is None else _read_latency(timed),
    )
    if timed is None or timed.latency is None:
        return profile.model_copy(update={"reason": rows[0].unavailable if rows else "it was not timed"})
    feeds = {loader.spec.input_name: preprocess_batch(fill_batch(images, batch), loader.spec)}
    warmup, calls = count_calls(timed.latency.p50_ms / 1e3, min(PROFILE_SECONDS, plan.settings.min_seconds))
    try:
        profiled = loader.profile(feeds, calls=calls, warmup_calls=warmup, threads=profile.threads)
    except (DataError, EnvironmentProblem, ModelError) as error:
        # The rows are measured, and a missing profile must not lose them.
        return profile.model_copy(update={"reason": error.message})
    return summarize_calls(profile, profiled)


def count_calls(latency_s: float, seconds: float) -> tuple[int, int]:
    """Count the calls of a warm-up and those that then fit into a time, from 3 to 50.

    Args:
        latency_s: of one call.
        seconds: for all of them.
    """
    warmup = 1 if latency_s > _SLOW_S else 3
    fitting = seconds / latency_s - warmup if latency_s > 0 else _MOST
    return warmup, int(min(_MOST, max(_FEWEST, fitting)))


def _find_rows(rows: Sequence[BenchmarkRow], role: Role, loader: Loader, batch: int) -> Iterator[BenchmarkRow]:
    """Find the rows of a model without preprocessing, in the order of timing."""
    name = loader.name
    wanted = (role, name.kind, name.provider, name.precision, batch, "engine")
    for row in rows:
        if (row.model, row.runner, row.provider, row.precision, row.batch, row.part) == wanted:
            yield row


def _read_latency(row: BenchmarkRow) -> Interval | None:
    """Read the median of a row; without an interval it reaches over all calls."""
    latency = row.latency
    if latency is None or row.streams != 1:
        return None
    return latency.intervals_ms.get("p50") or Interval(
        value=latency.p50_ms, low=latency.min_ms, high=latency.max_ms
    )
