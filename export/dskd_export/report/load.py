"""Read everything that a run folder holds for the report, typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dskd_export.documents.base import MAX_DOCUMENT, MAX_RECORD, Accuracy, Document, StageRecord, read_document
from dskd_export.documents.benchmark import BenchmarkDocument
from dskd_export.documents.export import ExportDocument
from dskd_export.documents.training import (
    DiagnosisRecord,
    EpochRecord,
    ModelFacts,
    StepRecord,
    TrainingDocument,
    read_record,
)
from dskd_export.documents.validation import ValidationDocument
from dskd_export.engine.document import BuildDocument
from dskd_export.errors import DataError
from dskd_export.files.bounded import read_bounded, read_lines
from dskd_export.files.json_text import InvalidJson, one_line, parse_json
from dskd_export.files.npz import InvalidNpz, read_npz
from dskd_export.spec import ModelSpec

DocumentT = TypeVar("DocumentT", bound=Document)


@dataclass(frozen=True)
class History:
    """The records of one training, each step, epoch and diagnosis once."""

    steps: tuple[StepRecord, ...]
    epochs: tuple[EpochRecord, ...]
    diagnoses: tuple[DiagnosisRecord, ...] = ()
    cut_off: bool = False  # the last line was being written when this was read


@dataclass(frozen=True)
class Measured:
    """An accuracy and the document it was read from."""

    accuracy: Accuracy
    source: str


@dataclass(frozen=True)
class Run:
    """A run folder. `None`: the file is missing."""

    folder: Path
    teacher: TrainingDocument | None = None
    student: TrainingDocument | None = None
    teacher_history: History | None = None
    student_history: History | None = None
    spec: ModelSpec | None = None
    manifest: Mapping[str, Any] | None = None
    export: ExportDocument | None = None
    validation: ValidationDocument | None = None
    benchmark: BenchmarkDocument | None = None
    samples: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)  # seconds
    stages: tuple[StageRecord, ...] = ()
    engines: Mapping[str, BuildDocument] = field(default_factory=dict)  # folder/file -> what built it

    @property
    def teacher_model(self) -> ModelFacts | None:
        """The teacher, as the distillation used it or as its own training left it."""
        if self.student is not None and self.student.teacher is not None:
            return self.student.teacher
        return self.teacher.model if self.teacher is not None else None

    @property
    def student_model(self) -> ModelFacts | None:
        """The student."""
        return self.student.model if self.student is not None else None

    @property
    def teacher_accuracy(self) -> Measured | None:
        """The teacher on the validation set."""
        if self.student is not None and self.student.teacher_accuracy is not None:
            return Measured(self.student.teacher_accuracy, "distill.json")
        return Measured(self.teacher.best, "teacher.json, best epoch") if self.teacher is not None else None

    @property
    def student_accuracy(self) -> Measured | None:
        """The student as exported, where it was measured on as many images as the teacher; else as trained."""
        teacher = self.teacher_accuracy
        for runner, accuracy in self.validation.accuracy.items() if self.validation is not None else ():
            if runner.startswith("torch"):
                continue
            if self.student is None or teacher is None or accuracy.images == teacher.accuracy.images:
                return Measured(accuracy, f"exported, {runner}, validation.json")
        return Measured(self.student.best, "distill.json, best epoch") if self.student is not None else None


def load_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        DataError: the folder is missing, holds no result, or a file in it is damaged.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder.", "Name a run folder: one that a command wrote with --out.")
    run = Run(
        folder=folder,
        teacher=_document(folder / "teacher.json", TrainingDocument),
        student=_document(folder / "distill.json", TrainingDocument),
        teacher_history=_history(folder / "teacher.train.jsonl"),
        student_history=_history(folder / "train.jsonl"),
        spec=ModelSpec.read(spec) if (spec := folder / "bundle" / "spec.json").is_file() else None,
        manifest=_json_object(folder / "bundle" / "manifest.json"),
        export=_document(folder / "export.json", ExportDocument),
        validation=_document(folder / "validation.json", ValidationDocument),
        benchmark=_document(folder / "benchmark.json", BenchmarkDocument),
        samples=_samples(folder / "benchmark.samples.npz"),
        stages=tuple(read_document(path, StageRecord) for path in sorted((folder / "stages").glob("*.json"))),
        engines={
            path.relative_to(folder / "engines").as_posix(): read_document(path, BuildDocument)
            for path in sorted((folder / "engines").glob("*/model.*.build.json"))
        },
    )
    found = (run.teacher, run.student, run.teacher_history, run.student_history)
    if not any((*found, run.spec, run.manifest, run.validation, run.benchmark, run.stages)):
        raise DataError(
            f"{folder} holds no results: none of teacher.json, distill.json, train.jsonl, bundle/, "
            "validation.json, benchmark.json, stages/.",
            "Name a run folder: one that a command wrote with --out.",
        )
    return run


def _document(path: Path, kind: type[DocumentT]) -> DocumentT | None:
    return read_document(path, kind) if path.is_file() else None


def _json_object(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        value = parse_json(read_bounded(path, MAX_DOCUMENT))
    except InvalidJson as error:
        raise DataError(f"{path}: {error}.", "Run again: dskd-compress export") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: not a JSON object.", "Run again: dskd-compress export")
    return value


def _history(path: Path) -> History | None:
    """Step and epoch records; where a resumed run wrote a step again, the later record counts."""
    if not path.is_file():
        return None
    cut_off = False
    steps: dict[int, StepRecord] = {}
    epochs: dict[int, EpochRecord] = {}
    diagnoses: dict[int, DiagnosisRecord] = {}
    for index, line in enumerate(read_lines(path, MAX_RECORD + 1), start=1):
        # A running or killed training may have left half a line at the end, and only there.
        cut_off = len(line) <= MAX_RECORD and not line.endswith(b"\n")
        if cut_off or not line.strip():
            continue
        try:
            record = read_record(line)
        except InvalidJson as error:
            raise DataError(
                f"{path}, line {index}: not a training record: {error}.",
                "Delete the line, or the file to report without the curves.",
            ) from error
        if isinstance(record, StepRecord):
            steps[record.step] = record
        elif isinstance(record, DiagnosisRecord):
            diagnoses[record.step] = record
        else:
            epochs[record.epoch] = record
    return History(
        steps=tuple(steps[key] for key in sorted(steps)),
        epochs=tuple(epochs[key] for key in sorted(epochs)),
        diagnoses=tuple(diagnoses[key] for key in sorted(diagnoses)),
        cut_off=cut_off,
    )


def _samples(path: Path) -> dict[str, npt.NDArray[np.float64]]:
    """Raw latencies in seconds by key; empty where the file is missing."""
    if not path.is_file():
        return {}
    hint = "Run again: dskd-compress benchmark"
    try:
        arrays = read_npz(path)
    except InvalidNpz as error:
        raise DataError(error.message, hint) from error
    for key, array in arrays.items():
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise DataError(f"{path}: {one_line(key)} must hold seconds.", hint)
    return {key: np.asarray(array, dtype=np.float64).ravel() for key, array in arrays.items()}
