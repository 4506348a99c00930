"""Suggest students for a teacher by their cost."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, TypeAdapter

from dskd_compress.catalogue.survey import Survey, survey_architecture
from dskd_compress.config import StudentSection
from dskd_compress.console import Output
from dskd_compress.model_names import check_name
from dskd_compress.models import create_model
from dskd_compress.timm_import import import_timm
from dskd_compress.torch_runner import TorchRunner
from dskd_export.benchmark.timing import measure_latency
from dskd_export.documents.base import Document
from dskd_export.documents.benchmark import Latency
from dskd_export.errors import ModelError, UsageError

TABLE = Path(__file__).parents[1] / "architectures.json"
# Without a budget: students are mostly a quarter of their teacher or smaller.
DEFAULT_SHARE = 0.25
_CLASSES = 1000


@dataclass(frozen=True)
class Budget:
    """Limits of a student.

    Attributes:
        parameters, macs: most, with a classifier of 1000 classes; None: a quarter of the teacher's.
    """

    parameters: int | None = None
    macs: int | None = None
    input_size: int | None = None  # square input in pixels; None: each model's own
    kind: Literal["cnn", "vit", "any"] = "any"
    pretrained: bool = False


class Suggestion(Document):
    """One suggested student."""

    name: str
    family: str
    kind: Literal["cnn", "vit"]
    parameters: int
    macs: int
    input_size: tuple[int, int, int]
    parameters_share: float = Field(description="of the teacher's")
    macs_share: float = Field(description="of the teacher's")
    over_parameters: float = Field(default=0.0, description="share beyond the budget; 0: within")
    over_macs: float = Field(default=0.0, description="share beyond the budget; 0: within")
    latency: Latency | None = Field(default=None, description="of one image, torch on the CPU; None: not measured")


class Suggestions(Document):
    """Students for a teacher, and why the others were left out."""

    teacher: str
    teacher_parameters: int
    teacher_macs: int
    max_parameters: int
    max_macs: int
    counted_with: dict[str, str] = Field(description="versions behind the table of all architectures")
    fits: bool = Field(default=True, description="False: nothing fits, and the students are the nearest")
    students: list[Suggestion]
    left_out: dict[str, str]


def suggest_students(teacher: str, budget: Budget, *, limit: int, measure: bool, output: Output) -> Suggestions:
    """Suggest the largest model of each family within the budget, closest to it first; fastest first if measured.

    Where nothing fits, the nearest: those that exceed the budget least.

    Raises:
        ModelError: timm has no such teacher, or its size cannot be counted.
        UsageError: no model is of the kind, or has pretrained weights, that the budget demands.
    """
    table, versions = load_table()
    of_teacher = _count(teacher, budget.input_size)
    parameters, macs = of_teacher.parameters, of_teacher.macs
    if parameters is None or macs is None:
        raise ModelError(
            of_teacher.refused["model"], "Set --teacher to another architecture: dskd-compress models list"
        )
    most_parameters = budget.parameters or int(parameters * DEFAULT_SHARE)
    most_macs = budget.macs or int(macs * DEFAULT_SHARE)
    left_out: dict[str, str] = {}
    fitting: list[tuple[float, str]] = []
    exceeding: list[tuple[float, str]] = []
    for name in import_timm().list_models():
        survey = table.get(name)
        reason = _find_reason_against(name, survey, teacher, budget)
        if reason is not None or survey is None:
            left_out[name] = reason or "not in the table"
            continue
        scaled = survey.model_copy(update={"macs": _scale_macs(survey, budget.input_size)})
        too_large = _explain_size(scaled, most_parameters, most_macs)
        if too_large is None:
            fitting.append((_score(survey, most_parameters, most_macs, budget.input_size), name))
        else:
            left_out[name] = too_large
            exceeding.append((-max(_excess(scaled, most_parameters, most_macs)), name))
    fits = bool(fitting)
    students: list[Suggestion] = []
    families: dict[str, str] = {}
    for _, name in sorted(fitting or exceeding, reverse=True):
        family = str(import_timm().model_entrypoint(name).__module__).rsplit(".", 1)[-1]
        if family in families:
            left_out.setdefault(name, f"smaller than {families[family]} of the same family")
        elif len(students) == limit:
            left_out.setdefault(name, f"fits, after the first {limit}")
        else:
            found = _count(name, budget.input_size)
            reason = found.refused.get("model")
            if fits:
                reason = reason or _explain_size(found, most_parameters, most_macs)
            if reason is not None or found.kind is None or not found.parameters or not found.macs:
                left_out[name] = reason or "cannot be counted"
                continue
            assert found.input_size is not None
            families[family] = name
            left_out.pop(name, None)
            over_parameters, over_macs = _excess(found, most_parameters, most_macs)
            students.append(
                Suggestion(
                    name=name,
                    family=family,
                    kind=found.kind,
                    parameters=found.parameters,
                    macs=found.macs,
                    input_size=found.input_size,
                    parameters_share=found.parameters / parameters,
                    macs_share=found.macs / macs,
                    over_parameters=over_parameters,
                    over_macs=over_macs,
                )
            )
    if not students and fits:  # by the table, and not once they are counted
        raise UsageError(
            f"No architecture of timm fits: at most {most_parameters:,} parameters and {most_macs:,} MACs.",
            "Raise --max-parameters or --max-macs.",
        )
    if not students:
        raise UsageError(
            f"No architecture of timm is a student: kind {budget.kind}"
            f"{', with pretrained weights' if budget.pretrained else ''}.",
            "Leave --pretrained out, or use --kind any",
        )
    if measure:
        students = sorted(
            _measure(students, output), key=lambda student: student.latency.p50_ms if student.latency else 0
        )
    return Suggestions(
        teacher=teacher,
        teacher_parameters=parameters,
        teacher_macs=macs,
        max_parameters=most_parameters,
        max_macs=most_macs,
        counted_with=versions,
        fits=fits,
        students=students,
        left_out=left_out,
    )


@functools.cache
def load_table() -> tuple[dict[str, Survey], dict[str, str]]:
    """Load the packaged figures of all architectures, and the versions behind them."""
    document = json.loads(TABLE.read_bytes())
    surveys = TypeAdapter(dict[str, Survey]).validate_python(
        {name: {"name": name, **facts} for name, facts in document["architectures"].items()}
    )
    return surveys, document["versions"]


def _count(name: str, input_size: int | None) -> Survey:
    check_name(name, "teacher")
    survey = survey_architecture(name, input_size=input_size, classes=_CLASSES, count_up_to=None)
    if survey.model_class is None:
        raise ModelError(survey.refused["model"], "See: dskd-compress models list")
    return survey


def _find_reason_against(name: str, survey: Survey | None, teacher: str, budget: Budget) -> str | None:
    """Find why a model is no student, whatever its size."""
    if name == teacher.split(".")[0]:
        return "is the teacher"
    if name.startswith("test_"):
        return "is made for tests"
    if survey is None:
        return "not in the table of architectures"
    if "model" in survey.refused:
        return survey.refused["model"]
    if survey.parameters is None or survey.macs is None:
        return "too large: its multiply-accumulates were not counted"
    if budget.kind not in ("any", survey.kind):
        return f"is a {survey.kind}"
    if budget.pretrained and not import_timm().is_model_pretrained(name):
        return "has no pretrained weights"
    return None


def _scale_macs(survey: Survey, input_size: int | None) -> int:
    """Estimate the MACs at another size by the number of pixels."""
    assert survey.macs is not None
    assert survey.input_size is not None
    return survey.macs if input_size is None else int(survey.macs * (input_size / survey.input_size[1]) ** 2)


def _explain_size(survey: Survey, most_parameters: int, most_macs: int) -> str | None:
    if survey.parameters is not None and survey.parameters > most_parameters:
        return f"{survey.parameters:,} parameters, more than {most_parameters:,}"
    if survey.macs is not None and survey.macs > most_macs:
        return f"{survey.macs:,} MACs, more than {most_macs:,}"
    return None


def _excess(survey: Survey, most_parameters: int, most_macs: int) -> tuple[float, float]:
    """Compute by what share parameters and MACs exceed the budget; 0 within it."""
    assert survey.parameters is not None
    assert survey.macs is not None
    return max(survey.parameters / most_parameters - 1, 0.0), max(survey.macs / most_macs - 1, 0.0)


def _score(survey: Survey, most_parameters: int, most_macs: int, input_size: int | None) -> float:
    """Compute the share of the budget that a student uses, the geometric mean of both limits."""
    assert survey.parameters is not None
    used: float = (survey.parameters / most_parameters * _scale_macs(survey, input_size) / most_macs) ** 0.5
    return used


def _measure(students: list[Suggestion], output: Output) -> Iterator[Suggestion]:
    with output.progress("Timing", len(students), unit="model") as progress:
        for student in students:
            size = student.input_size
            model = create_model(
                StudentSection(name=student.name, pretrained=False), num_classes=_CLASSES, input_size=size[1]
            )
            feeds = {"input": np.zeros((1, *size), dtype=np.float32)}
            with TorchRunner(model) as runner:
                timing = measure_latency(
                    lambda runner=runner, feeds=feeds: runner.infer(feeds),  # type: ignore[misc]
                    min_seconds=0.5,
                    min_iterations=20,
                    max_warmup_seconds=2.0,
                )
            progress.advance(1)
            yield student.model_copy(update={"latency": timing.latency})
