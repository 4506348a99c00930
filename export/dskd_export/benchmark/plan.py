"""What a benchmark times: models of a bundle and next to it, on runners and providers, with every batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dskd_export.benchmark.cells import PARTS, Cell, Role
from dskd_export.benchmark.loadgen import scenario_batch, select_scenarios
from dskd_export.bundle import Bundle
from dskd_export.documents.benchmark import ScenarioName
from dskd_export.engine.identity import FoundEngine
from dskd_export.errors import UsageError
from dskd_export.runtime.loader import EngineLoader, Finder, Loader, find_loaders
from dskd_export.settings import BenchmarkSettings


@dataclass(frozen=True)
class BenchmarkPlan:
    """All cells of a benchmark.

    Attributes:
        bundle: of the student.
        settings: what of it, and how long.
        models: teacher or student, and its loader, in the order of timing.
    """

    bundle: Bundle
    settings: BenchmarkSettings
    models: Sequence[tuple[Role, Loader]]

    @property
    def engines(self) -> list[FoundEngine]:
        """TensorRT engines, those that cannot run here among them."""
        return [loader.found for _, loader in self.models if isinstance(loader, EngineLoader)]

    @property
    def scenarios(self) -> list[ScenarioName]:
        """In LoadGen's order."""
        return select_scenarios(self.settings.scenarios)

    @property
    def max_batch(self) -> int:
        """Images of the largest call."""
        scenarios = (scenario_batch(name, self.settings) for name in self.scenarios)
        return max([*self.settings.batches, *scenarios])

    @property
    def steps(self) -> int:
        """Rows, scenarios and profiles, for a progress display."""
        batches = self.settings.batches
        profiles = len(self.models) if self.settings.profile else 0
        return len(self.cells(batches[:1])) * (len(PARTS) * len(batches) + len(self.scenarios)) + profiles

    def cells(self, batches: Sequence[int]) -> list[Cell]:
        """List every model with every batch; a cell that cannot be timed has its reason."""
        settings = self.settings
        return [
            Cell(
                role=role,
                runner=loader.name.kind,
                provider=loader.name.provider,
                precision=loader.name.precision,
                batch=batch,
                spec=loader.spec,
                open=partial(loader.open, [batch], threads=threads, streams=streams),
                required=settings.precisions is not None,
                size_mb=loader.size_mb,
                threads=threads,
                streams=streams,
                unavailable=loader.refuse_batch(batch),
            )
            for role, loader in self.models
            for batch in batches
            for threads in (settings.threads if loader.name.provider == "cpu" else None) or (None,)
            for streams in (settings.streams if loader.takes_streams else (1,))
        ]


def plan_benchmark(
    bundle: Bundle, settings: BenchmarkSettings, engines: Path, more: Mapping[str, Finder] | None = None
) -> BenchmarkPlan:
    """Plan a benchmark of the student: find its models, and check requested precisions.

    Args:
        bundle: the student's models.
        settings: what to time.
        engines: folder of the bundle's engines.
        more: runners besides those of a bundle: torch. None: there is no torch here.

    Raises:
        EnvironmentProblem: a named provider cannot run here, or only engines are requested and none can.
        UsageError: the bundle lacks a requested precision, or torch is requested of a bundle.
    """
    for precision in settings.precisions or ():
        bundle.model_path(precision)
    if more is None and "torch" in settings.runners and "runners" in settings.model_fields_set:
        raise UsageError(
            "benchmark.runners names torch, and a bundle is timed without torch.",
            "Remove torch from benchmark.runners, or benchmark the run folder.",
        )
    loaders = find_loaders(bundle, engines, settings, more)
    return BenchmarkPlan(bundle, settings, [("student", loader) for loader in loaders])
