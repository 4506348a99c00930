"""What a recipe says of a benchmark, in the terms of the package that measures. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dskd_compress.config import Recipe
from dskd_compress.recipe import BundleSettings
from dskd_compress.run_folder import digest
from dskd_export.benchmark.budget import judge_rows
from dskd_export.benchmark.loadgen import named
from dskd_export.benchmark.scenarios import Load
from dskd_export.benchmark.store import CellStore
from dskd_export.documents.benchmark import BenchmarkRow, RowJudgement
from dskd_export.provenance import versions
from dskd_export.settings import BenchmarkSettings
from dskd_export.telemetry.device_name import device_name


def load_of(section: BenchmarkSettings, seed: int) -> Load:
    """The scenarios."""
    return Load(
        names=named(section.scenarios),
        seconds=section.scenario_seconds,
        bound_ms=section.server_bound_ms,
        offline_batch=max(section.batches),
        max_warmup_seconds=section.max_warmup_seconds,
        seed=seed,
    )


def cell_store(folder: Path, bundle_sha256: str, section: BenchmarkSettings, fresh: bool) -> CellStore:
    """Cells that are done, of this bundle with these settings on this device."""
    of = [bundle_sha256, digest(section.model_dump(mode="json")), device_name(), str(sorted(versions().items()))]
    return CellStore(folder, of, fresh=fresh)


def judged(recipe: Recipe | BundleSettings, rows: Sequence[BenchmarkRow]) -> list[RowJudgement]:
    """What was timed, held to the budget of this device."""
    budget = recipe.budget
    return judge_rows(budget.speed(device_name()), rows, batch=budget.batch, part=budget.part)
