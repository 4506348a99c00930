"""What a benchmark times: models of a bundle and next to it, on runners and providers, with every batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Protocol

from dskd_export.benchmark.cells import PARTS, Cell, Role
from dskd_export.benchmark.loadgen import scenario_batch, select_scenarios
from dskd_export.bundle import Bundle
from dskd_export.documents.benchmark import ScenarioName
from dskd_export.engine.identity import FoundEngine
from dskd_export.errors import UsageError
from dskd_export.runtime.loader import EngineLoader, OnnxLoader
from dskd_export.runtime.runner import Runner
from dskd_export.settings import BenchmarkSettings
from dskd_export.spec import ModelSpec
from dskd_export.validation.candidates import engines_for, in_order, named_providers


class ModelSource(Protocol):
    """A model in all its precisions, for one runner: a source of cells."""

    @property
    def role(self) -> Role:
        """Teacher or student."""

    @property
    def runner(self) -> str:
        """torch or onnxruntime."""

    @property
    def spec(self) -> ModelSpec:
        """Of the model's input."""

    @property
    def sizes_mb(self) -> Mapping[str, float | None]:
        """Precision -> size of the file, None where there is no file; in the order of timing."""

    def select_providers(self, names: Sequence[str]) -> list[str]:
        """Resolve `auto` and refuse what this machine lacks; a name of another runner is left out.

        Raises:
            EnvironmentProblem: a named provider cannot run here.
        """

    def open(self, precision: str, provider: str, batch: int, threads: int | None) -> Runner:
        """Open the model for calls of one batch size."""


@dataclass(frozen=True)
class OnnxSource:
    """Models for ONNX Runtime: those of a bundle, or a single file.

    Attributes:
        role: teacher or student.
        spec: of the input.
        sizes_mb: precision -> size of the file.
        load: precision -> path or content of the ONNX file.
        allow_cpu: operators that may run on the CPU under another provider.
    """

    role: Role
    spec: ModelSpec
    sizes_mb: Mapping[str, float | None]
    load: Callable[[str], bytes | Path]
    allow_cpu: Sequence[str] = ()
    runner: str = "onnxruntime"

    def select_providers(self, names: Sequence[str]) -> list[str]:
        """Resolve `auto` to the CPU and, where present, CUDA."""
        return named_providers(names)

    def open(self, precision: str, provider: str, batch: int, threads: int | None) -> Runner:
        """Open a model; TensorRT's provider gets a profile of this batch."""
        read = partial(self.load, precision)
        return OnnxLoader(read, self.spec, provider, precision, threads, self.allow_cpu, [batch])()


def open_bundle_source(bundle: Bundle, settings: BenchmarkSettings) -> OnnxSource:
    """The student's models in a bundle, in the requested precisions.

    Raises:
        UsageError: the bundle lacks a requested precision.
    """
    precisions = settings.precisions or in_order(bundle.precisions)
    sizes: dict[str, float | None] = {name: bundle.model_mb(name) for name in precisions}
    return OnnxSource("student", bundle.spec, sizes, bundle.model, settings.allow_cpu)


@dataclass(frozen=True)
class BenchmarkPlan:
    """All cells of a benchmark.

    Attributes:
        bundle: of the student.
        settings: what of it, and how long.
        sources: models, in the order of timing.
        engines: TensorRT engines of the bundle, those that cannot run here among them.
    """

    bundle: Bundle
    settings: BenchmarkSettings
    sources: Sequence[ModelSource]
    engines: Sequence[FoundEngine]

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
        """Rows and scenarios, for a progress display."""
        batches = self.settings.batches
        return len(self.cells(batches[:1])) * (len(PARTS) * len(batches) + len(self.scenarios))

    def cells(self, batches: Sequence[int]) -> list[Cell]:
        """List every model on every provider with every batch; a cell that cannot be timed has its reason.

        Raises:
            EnvironmentProblem: a named provider cannot run here.
        """
        of_sources = (cell for source in self.sources for cell in self._source_cells(source, batches))
        return [*of_sources, *self._engine_cells(batches)]

    def _source_cells(self, source: ModelSource, batches: Sequence[int]) -> Iterator[Cell]:
        providers = source.select_providers(self.settings.providers)
        for precision, provider, batch in product(source.sizes_mb, providers, batches):
            of_cpu = self.settings.threads if provider == "cpu" else None
            for threads in of_cpu or (None,):
                yield Cell(
                    role=source.role,
                    runner=source.runner,
                    provider=provider,
                    precision=precision,
                    batch=batch,
                    spec=source.spec,
                    open=partial(source.open, precision, provider, batch, threads),
                    required=self.settings.precisions is not None,
                    size_mb=source.sizes_mb[precision],
                    threads=threads,
                )

    def _engine_cells(self, batches: Sequence[int]) -> Iterator[Cell]:
        for engine, batch, streams in product(self.engines, batches, self.settings.streams):
            reason = engine.problem
            if not reason and not engine.document.takes(batch):
                reason = f"the engine takes batches of {engine.document.batches}; build it with --batch {batch}"
            yield Cell(
                role="student",
                runner="tensorrt",
                provider="cuda",
                precision=engine.precision,
                batch=batch,
                spec=self.bundle.spec,
                open=EngineLoader(engine.path, engine.precision, streams),
                streams=streams,
                size_mb=engine.size_mb,
                unavailable=reason,
            )


def plan_benchmark(
    bundle: Bundle, settings: BenchmarkSettings, engines: Path, sources: Sequence[ModelSource] | None = None
) -> BenchmarkPlan:
    """Plan a benchmark: find the engines, and check requested precisions.

    Args:
        bundle: the student's models.
        settings: what to time.
        engines: folder of the bundle's engines.
        sources: models, in the order of timing; None: those of the bundle, without torch.

    Raises:
        EnvironmentProblem: only engines are requested, and none can run here.
        UsageError: the bundle lacks a requested precision, or torch is requested of a bundle.
    """
    for precision in settings.precisions or ():
        bundle.model_path(precision)
    if sources is None:
        if "torch" in settings.runners and "runners" in settings.model_fields_set:
            raise UsageError(
                "benchmark.runners names torch, and a bundle is timed without torch.",
                "Remove torch from benchmark.runners, or benchmark the run folder.",
            )
        sources = [open_bundle_source(bundle, settings)] if "onnxruntime" in settings.runners else []
    found = []
    if "tensorrt" in settings.runners:
        found = engines_for(engines, bundle, settings.precisions, settings.runners)
    return BenchmarkPlan(bundle, settings, sources, found)
