"""The stages: what of the recipe shapes each of them, what it reads and what it writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from dskd_compress.config import DataSection, Recipe, TrainSection
from dskd_compress.names import BENCHMARK, DISTILL, EXPORT, REPORT, TRAIN, TUNE, VALIDATE
from dskd_export.files.atomic import sha256_file
from dskd_export.settings import SpeedBudget

TEACHER_PROBE = "teacher_probe.safetensors"
MODEL_CARD = "MODEL_CARD.md"


def name_tuned_weights(precision: str) -> str:
    """Name the weights of a student that was tuned for a precision."""
    return f"student.{precision}.safetensors"


TUNED_WEIGHTS = tuple(name_tuned_weights(precision) for precision in ("int8", "fp8"))


@dataclass(frozen=True)
class Stage:
    """Inputs, settings and outputs of a stage.

    Attributes:
        roles: models whose files the recipe may name outside the run folder.
    """

    name: str
    settings: Callable[[Recipe], Mapping[str, Any]]  # recipe -> the parts of it that shape the result
    inputs: tuple[str, ...]  # files of earlier stages, relative to the run folder; missing ones are ignored
    outputs: tuple[str, ...]  # files that it always writes
    optional: tuple[str, ...] = ()  # files that it may write
    roles: tuple[Literal["teacher", "student"], ...] = ()


_TEACHER_INPUT = ("input_size", "interpolation", "crop_pct")


def _dump(section: BaseModel) -> Any:
    return section.model_dump(mode="json")


def _images(section: DataSection) -> Any:
    # A recipe that ignores EXIF has the digest that it had before there was this key.
    return section.model_dump(mode="json", exclude={"exif"} if section.exif == "ignore" else None)


def _training(section: TrainSection | None) -> Any:
    # How often it is saved, and how long a process waits for others, shapes nothing of a training.
    kept_out = {"checkpoint_steps", "keep_checkpoints", "distributed_timeout_s"}
    if section is None:
        return None
    if not section.freeze_batch_norm:  # so that runs from before this key are up to date
        kept_out.add("freeze_batch_norm")
    return section.model_dump(mode="json", exclude=kept_out)


def _ready_teacher(recipe: Recipe) -> Any:
    # How it was trained shows in its weights; train, probe and class_map say the rest of how it was fitted.
    # What it is known to reach shapes nothing. Keys that a recipe does not use leave older digests as they are.
    unused = {name for name in _TEACHER_INPUT if getattr(recipe.teacher, name) is None}
    return recipe.teacher.model_dump(mode="json", exclude={"fit", "train", "cache", "accuracy", *unused})


def _trained_part(recipe: Recipe) -> dict[str, str]:
    # Nothing where all of it is trained, as in runs from before this key.
    return {"fit": "head"} if recipe.teacher.chosen_fit == "head" else {}


def _speed(recipe: Recipe) -> Any:
    # What a budget says of accuracy is judged by another stage.
    return recipe.budget.model_dump(mode="json", include={*SpeedBudget.model_fields, "batch", "part", "devices"})


def _timing(recipe: Recipe) -> Any:
    # A recipe without a profile has the digest that it had before there were profiles.
    return recipe.benchmark.model_dump(mode="json", exclude=set() if recipe.benchmark.profile else {"profile"})


def _accuracy(recipe: Recipe) -> Any:
    # What a budget says of speed alone is judged by the benchmark.
    return recipe.budget.model_dump(
        mode="json", exclude={*SpeedBudget.model_fields, "batch", "part"} - {"size_mb"}
    )


def _validation(recipe: Recipe) -> Any:
    # On as ever: a validation from before there were photos is not repeated for them.
    left_out = {"photos"} if recipe.validation.photos else None
    return recipe.validation.model_dump(mode="json", exclude=left_out)


def _rounding(recipe: Recipe) -> str | None:
    # Of the cache only this shapes a student; where it lies does not, nor a cache of exact numbers.
    cache = recipe.teacher.cache
    return cache.features if cache.enabled and cache.features != "float32" else None


# The order is the order of the pipeline.
STAGES: tuple[Stage, ...] = (
    Stage(
        TRAIN,
        lambda r: {
            "seed": r.seed,
            "data": _images(r.data),
            "teacher": {**_ready_teacher(r), "train": _training(r.teacher.train), **_trained_part(r)},
            "student": r.student.name,
        },
        (),
        ("teacher.safetensors", "teacher.json", "teacher.train.jsonl"),
        roles=("teacher",),
    ),
    Stage(
        DISTILL,
        lambda r: {
            "seed": r.seed,
            "data": _images(r.data),
            "teacher": {**_ready_teacher(r), "cache": _rounding(r)},
            "student": _dump(r.student),
            "method": _dump(r.method),
            "train": _training(r.train),
        },
        ("teacher.safetensors",),
        ("student.safetensors", "distill.json", "train.jsonl"),
        optional=(TEACHER_PROBE,),
        roles=("teacher", "student"),
    ),
    Stage(
        TUNE,
        lambda r: {
            "seed": r.seed,
            "data": _images(r.data),
            "method": _dump(r.method),
            "train": _training(r.train),
            "tune": None if r.tune is None else _dump(r.tune),
        },
        ("student.safetensors", "teacher.safetensors", TEACHER_PROBE),
        ("tune.json", "tuned.train.jsonl"),
        optional=TUNED_WEIGHTS,
        roles=("teacher",),
    ),
    Stage(
        EXPORT,
        # The teacher is exported as well, and a method without one gives the same student for any of them.
        lambda r: {
            "export": _dump(r.export),
            "teacher": _ready_teacher(r),
            "tune": None if r.tune is None else _dump(r.tune),
        },
        ("student.safetensors", *TUNED_WEIGHTS, "teacher.safetensors", TEACHER_PROBE),
        (
            "bundle/manifest.json",
            "bundle/spec.json",
            "bundle/labels.txt",
            "bundle/golden.npz",
            "bundle/model.fp32.onnx",
            "export.json",
        ),
        optional=(
            "bundle/calibration.json",
            *(f"bundle/model.{precision}.onnx" for precision in ("fp16", "bf16", "int8", "fp8")),
            "bundle/model.fp32.onnx.data",
            "teacher.fp32.onnx",
            "teacher.fp32.onnx.data",
        ),
        roles=("teacher",),
    ),
    Stage(
        VALIDATE,
        # The student is judged by the teacher as well, unless nothing is asked of it.
        lambda r: {
            "validate": _validation(r),
            "budget": _accuracy(r),
            "teacher": None if r.budget.student_drop is None else _ready_teacher(r),
        },
        ("bundle/manifest.json", "student.safetensors", "teacher.safetensors", TEACHER_PROBE),
        ("validation.json",),
        roles=("teacher",),
    ),
    Stage(
        BENCHMARK,
        lambda r: {"benchmark": _timing(r), "budget": _speed(r), "teacher": _ready_teacher(r)},
        (
            "bundle/manifest.json",
            "student.safetensors",
            "teacher.safetensors",
            TEACHER_PROBE,
            "teacher.fp32.onnx",
            "teacher.fp32.onnx.data",
        ),
        ("benchmark.json", "benchmark.samples.npz"),
        roles=("teacher",),
    ),
    Stage(
        REPORT,
        lambda r: {"report": _dump(r.report)},
        (
            "teacher.json",
            "teacher.train.jsonl",
            "distill.json",
            "train.jsonl",
            "bundle/manifest.json",
            "export.json",
            "validation.json",
            "benchmark.json",
        ),
        ("report.html", "report.md", "report.csv"),
        optional=(MODEL_CARD,),
    ),
)

# What is written at the top of the folder, and the folders of which all is written by stages.
WRITTEN = frozenset(
    ["recipe.yaml", "bundle", *(name for stage in STAGES for name in stage.outputs + stage.optional)]
)
WRITTEN_FOLDERS = (
    "stages",
    "checkpoint",
    "checkpoint/*",
    "earlier",
    "earlier/*",
    "trackers",
    "engines",
    "engines/*",
    "benchmark.partial",
)


def find_stage(name: str) -> Stage:
    """Find a stage by its name in `STAGE_NAMES`."""
    return next(stage for stage in STAGES if stage.name == name)


def list_stages(recipe: Recipe) -> list[Stage]:
    """List the stages of a recipe: `train` only where it trains the teacher, `tune` only where it tunes."""
    left_out = {name for name, section in ((TRAIN, recipe.teacher.train), (TUNE, recipe.tune)) if section is None}
    return [stage for stage in STAGES if stage.name not in left_out]


def hash_outside_files(stage: Stage, recipe: Recipe) -> dict[str, str]:
    """Hash the files that the recipe names outside the run folder; missing ones are the reader's error."""
    named = {f"{role}.checkpoint": getattr(recipe, role).checkpoint for role in stage.roles}
    if "teacher" in stage.roles:
        named["teacher.class_map"] = recipe.teacher.class_map
        named["teacher.class_names"] = Path(recipe.teacher.class_names) if recipe.teacher.class_names else None
    return {name: sha256_file(path) for name, path in named.items() if isinstance(path, Path) and path.is_file()}
