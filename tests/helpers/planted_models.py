"""Documents that the real code makes of planted answers and times: a validation by its one flow, a benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from export_document_support import make_provenance
from numpy.typing import NDArray

from dskd_export.benchmark.budget import judge_rows
from dskd_export.bundle.golden import Golden
from dskd_export.documents.base import DataFacts, DeviceFacts, Interval
from dskd_export.documents.benchmark import BenchmarkDocument, BenchmarkRow, Latency
from dskd_export.documents.runner_name import RunnerName
from dskd_export.documents.validation import ValidationDocument
from dskd_export.runtime.compute_precision import ComputePrecision
from dskd_export.runtime.loader import Loader
from dskd_export.runtime.runner import Array
from dskd_export.settings import BudgetSettings, ValidateSettings
from dskd_export.spec import ModelSpec
from dskd_export.validation.batches import ValidationBatch
from dskd_export.validation.judgement import Measured, TeacherOutputs
from dskd_export.validation.models import LoadedModel, Models
from dskd_export.validation.reference import Reference
from dskd_export.validation.run import validate

CLASSES = ("ant", "bee", "cat", "dog")
SIZES_MB = {"fp32": 8.0, "fp16": 4.0, "int8": 2.0}
XEON = DeviceFacts(device="cpu", cpu="Intel Xeon", cores=8, memory_gb=32, platform="Linux")
ORIN = DeviceFacts(
    device="cuda:0",
    cpu="Cortex-A78AE, NVIDIA Jetson Orin Nano",
    cores=6,
    memory_gb=8,
    gpu="Orin",
    compute_capability="8.7",
    platform="Linux",
)
_CHUNK = 500


@dataclass(frozen=True)
class Planted:
    """Who is wrong on which images.

    Attributes:
        images: labelled ones.
        student: number of images that the student gets wrong, from the last on.
        teacher: the same of the teacher.
        models: precision -> number of images that it loses against the student, from the middle on.
        commonest: images of the first class; 0: as many of each.
        guesses: the student always answers the first class.
        doubt: what is known against the teacher.
        knows_teacher: a run does, results on a device do not.
        target: what the bundle is for.
        budget: keys of the budget.
    """

    images: int = 2000
    student: int = 100
    teacher: int = 100
    models: Mapping[str, int] = field(default_factory=lambda: {"fp32": 0})
    commonest: int = 0
    guesses: bool = False
    doubt: str = ""
    knows_teacher: bool = True
    target: str | None = "jetson-orin"
    budget: Mapping[str, Any] = field(default_factory=dict)

    @property
    def labels_N(self) -> NDArray[np.int64]:
        """The first class first where it is commonest, else all classes mixed."""
        if not self.commonest:
            return np.arange(self.images) % len(CLASSES)
        rest = np.arange(self.images - self.commonest) % (len(CLASSES) - 1) + 1
        return np.concatenate([np.zeros(self.commonest, np.int64), rest])

    def answers(self, wrong: int) -> NDArray[np.int64]:
        """Right but for the last images."""
        answers_N = self.labels_N.copy()
        answers_N[len(answers_N) - wrong :] = (answers_N[len(answers_N) - wrong :] + 1) % len(CLASSES)
        return answers_N

    def logits(self, precision: str | None) -> NDArray[np.float32]:
        """Of a precision of the student; None: of the teacher."""
        answers_N = self.answers(self.teacher if precision is None else self.student)
        if self.guesses and precision is not None:
            answers_N = np.zeros_like(answers_N)
        first = self.images // 2
        lost = slice(first, first + self.models.get(precision or "", 0))
        answers_N[lost] = (answers_N[lost] + 1) % len(CLASSES)
        logits_NK: NDArray[np.float32] = 10 * np.eye(len(CLASSES), dtype=np.float32)[answers_N]
        return logits_NK

    def settings(self) -> BudgetSettings:
        """The budget."""
        return BudgetSettings.model_validate(dict(self.budget))

    def validate(self) -> ValidationDocument:
        """Validate the planted models by the real flow: an input is the number of an image."""
        labels_N, spec = self.labels_N, make_spec()
        numbers_N = np.arange(self.images, dtype=np.float32).reshape(-1, 1, 1, 1)
        student_NK = self.logits("fp32")
        golden = Golden(numbers_N[:4], student_NK[:4], labels_N[:4], np.array(["0" * 64] * 4))
        bundle: Any = SimpleNamespace(
            spec=spec,
            sha256="b" * 64,
            golden=lambda: golden,
            manifest=SimpleNamespace(provenance=SimpleNamespace(target=self.target)),
        )
        reference = _load(RunnerName("torch:cpu:fp32"), student_NK, spec)
        models = [_load(RunnerName.of("onnxruntime", "cpu", one), self.logits(one), spec) for one in self.models]

        def batches() -> Iterator[ValidationBatch]:
            for start in range(0, self.images, _CHUNK):
                part = slice(start, start + _CHUNK)
                yield ValidationBatch(labels_N[part], numbers_N[part], ("1" * 64,) * len(labels_N[part]))

        return validate(
            bundle,
            Models(reference, models),
            _PlantedReference(reference, bundle, ValidateSettings(), self),
            batches(),
            ValidateSettings(),
            self.settings(),
            facts=lambda: DataFacts(
                source="planted",
                sha256="0",
                sha256_of="content",
                train_images=None,
                val_images=self.images,
                classes=list(CLASSES),
            ),
            provenance=lambda **_: make_provenance("dskd-compress validate"),
            on_images=lambda _: None,
            warn=lambda _: None,
        )

    def benchmark(
        self,
        times_ms: Mapping[str, float],
        device: DeviceFacts,
        runner: str = "onnxruntime:cpu",
        unstable: Sequence[str] = (),
    ) -> BenchmarkDocument:
        """Time the models, precision -> ms, and judge them by the real budget."""
        kind, provider = runner.split(":")
        rows = [make_row(one, ms, kind, provider, stable=one not in unstable) for one, ms in times_ms.items()]
        return BenchmarkDocument(
            rows=rows,
            judgements=judge_rows(self.settings().speed(), rows, batch=1, part="engine"),
            bundle_sha256="b" * 64,
            provenance=make_provenance("dskd-compress benchmark").model_copy(update={"device": device}),
        )


def make_row(precision: str, ms: float, kind: str, provider: str, *, stable: bool = True) -> BenchmarkRow:
    """Make a row whose interval is 4 % wide."""
    names = ("p50", "p90", "p95", "p99", "p999", "mean", "min", "max")
    times: dict[str, Any] = {f"{name}_ms": ms for name in names}
    ends = Interval(value=ms, low=0.98 * ms, high=1.02 * ms)
    return BenchmarkRow(
        model="student",
        runner=kind,
        provider=provider,
        precision=precision,
        batch=1,
        threads=None,
        part="engine",
        latency=Latency(
            **times,
            intervals_ms={"p50": ends, "p99": ends, "mean": ends},
            coefficient_of_variation=0.01,
            iterations=500,
            warmup_iterations=50,
            stable=stable,
            reason="" if stable else "the rate drifted",
        ),
        throughput_images_per_s=1000 / ms,
        size_mb=SIZES_MB[precision],
    )


def make_spec() -> ModelSpec:
    """Make the spec of a model whose inputs are numbers of images."""
    return ModelSpec(
        architecture="planted",
        height=1,
        width=1,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        interpolation="bilinear",
        crop_pct=1.0,
        classes=CLASSES,
        opset=20,
        student_sha256="0" * 64,
    )


class _PlantedRunner:
    name, facts = "planted", ()

    def __init__(self, logits_NK: NDArray[np.float32]) -> None:
        self._logits_NK = logits_NK

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return {"logits": self._logits_NK[feeds["input"].ravel().astype(np.int64)]}


class _PlantedLoader(Loader):
    def open(self, batches: Sequence[int], *, threads: int | None = None, streams: int = 1) -> Any:
        raise AssertionError("it is open")


def _load(name: RunnerName, logits_NK: NDArray[np.float32], spec: ModelSpec) -> LoadedModel:
    loader = _PlantedLoader(name=name, spec=spec, size_mb=SIZES_MB[name.precision])
    runner: Any = _PlantedRunner(logits_NK)
    return LoadedModel(loader, runner, ComputePrecision(True, ""))


@dataclass(frozen=True)
class _PlantedReference(Reference[ValidationBatch]):
    planted: Planted

    @property
    def teacher(self) -> TeacherOutputs:
        if not self.planted.knows_teacher:
            return super().teacher
        return TeacherOutputs(self.planted.logits(None), doubt=self.planted.doubt)

    def select_measured(self, candidate: LoadedModel, measured: Measured) -> tuple[str, Measured]:
        return self.name, measured
