"""The run folder: the only owner of artifact names, hashes and the state of stages.

recipe.yaml              what was asked for, resolved
teacher.safetensors      teacher.json  teacher.train.jsonl     (only where the recipe trains one)
teacher_probe.safetensors                                      (only where the recipe fits one)
student.safetensors      distill.json  train.jsonl
checkpoint/teacher|student/                                    what an interrupted training goes on from
teacher_cache/                                                 what the teacher said, where the recipe keeps it
trackers/                                                      files of TensorBoard, wandb, mlflow where asked for
bundle/  export.json     teacher.fp32.onnx                     the deliverable, and what it is compared to
validation.json  benchmark.json  benchmark.samples.npz  report.html  report.md  report.csv
MODEL_CARD.md            engines/<device>/                      for the Hub; from build
stages/<stage>.json      what each stage read and wrote, by sha256
.dskd-compress.lock      who writes to the folder, while somebody does
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import shlex
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from pydantic import BaseModel

from dskd_compress.config import Recipe, Section, TrainSection
from dskd_compress.console import Output
from dskd_compress.launch import place_of_this_process
from dskd_compress.recipe import dump_recipe, load_recipe, section_digests
from dskd_export.bundle.results import Measurement
from dskd_export.documents.base import Document, Provenance, StageRecord, read_document
from dskd_export.errors import DataError, EnvironmentProblem
from dskd_export.files.atomic import sha256_file, write_atomic
from dskd_export.files.folder_lock import hold_folder, refuse_links
from dskd_export.settings import SpeedBudget

TRAIN, DISTILL, TUNE, EXPORT = "train", "distill", "tune", "export"
VALIDATE, BENCHMARK, REPORT = "validate", "benchmark", "report"
TEACHER_PROBE = "teacher_probe.safetensors"
MODEL_CARD = "MODEL_CARD.md"


def tuned_weights(precision: str) -> str:
    """Name of the weights of a student that was tuned for a precision."""
    return f"student.{precision}.safetensors"


TUNED_WEIGHTS = tuple(tuned_weights(precision) for precision in ("int8", "fp8"))


@dataclass(frozen=True)
class Stage:
    """What a stage depends on and makes.

    Attributes:
        settings: recipe -> what of it shapes the result.
        inputs: files of earlier stages, relative to the run folder; those that are there count.
        outputs: files that it makes; all of them, unless `optional` says otherwise.
        roles: models whose files, where the recipe names some, are read from outside the run folder.
    """

    name: str
    settings: Callable[[Recipe], Mapping[str, Any]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    optional: tuple[str, ...] = ()
    roles: tuple[Literal["teacher", "student"], ...] = ()


def _dump(section: BaseModel) -> Any:
    return section.model_dump(mode="json")


def _training(section: TrainSection | None) -> Any:
    # How often it is saved, and how long a process waits for others, shapes nothing of a training.
    kept_out = {"checkpoint_steps", "keep_checkpoints", "distributed_timeout_s"}
    return None if section is None else section.model_dump(mode="json", exclude=kept_out)


def _ready_teacher(recipe: Recipe) -> Any:
    # How it was trained shows in its weights.
    return recipe.teacher.model_dump(mode="json", exclude={"train", "cache"})


def _speed(recipe: Recipe) -> Any:
    # What a budget says of accuracy is judged by another stage.
    return recipe.budget.model_dump(mode="json", include={*SpeedBudget.model_fields, "batch", "part", "devices"})


def _accuracy(recipe: Recipe) -> Any:
    # What a budget says of speed alone is judged by the benchmark.
    return recipe.budget.model_dump(
        mode="json", exclude={*SpeedBudget.model_fields, "batch", "part"} - {"size_mb"}
    )


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
            "data": _dump(r.data),
            "teacher": {**_ready_teacher(r), "train": _training(r.teacher.train)},
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
            "data": _dump(r.data),
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
            "data": _dump(r.data),
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
            "validate": _dump(r.validation),
            "budget": _accuracy(r),
            "teacher": None if r.budget.student_drop is None else _ready_teacher(r),
        },
        ("bundle/manifest.json", "student.safetensors", "teacher.safetensors", TEACHER_PROBE),
        ("validation.json",),
        roles=("teacher",),
    ),
    Stage(
        BENCHMARK,
        lambda r: {"benchmark": _dump(r.benchmark), "budget": _speed(r), "teacher": _ready_teacher(r)},
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
STAGE_NAMES: tuple[str, ...] = tuple(stage.name for stage in STAGES)

# What is written at the top of the folder, and the folders of which all is written by stages.
_WRITTEN = frozenset(
    ["recipe.yaml", "bundle", *(name for stage in STAGES for name in stage.outputs + stage.optional)]
)
_WRITTEN_FOLDERS = (
    "stages",
    "checkpoint",
    "checkpoint/*",
    "trackers",
    "engines",
    "engines/*",
    "benchmark.partial",
)


def stage_named(name: str) -> Stage:
    """The stage of a name in `STAGE_NAMES`."""
    return next(stage for stage in STAGES if stage.name == name)


def stages_of(recipe: Recipe) -> list[Stage]:
    """The stages that a recipe has: `train` only where it trains the teacher, `tune` only where it tunes."""
    left_out = {name for name, section in ((TRAIN, recipe.teacher.train), (TUNE, recipe.tune)) if section is None}
    return [stage for stage in STAGES if stage.name not in left_out]


def _outside(stage: Stage, recipe: Recipe) -> dict[str, str]:
    """sha256 of the files that the recipe names outside the run folder; a missing one is the reader's error."""
    named = {f"{role}.checkpoint": getattr(recipe, role).checkpoint for role in stage.roles}
    if "teacher" in stage.roles:
        named["teacher.class_map"] = recipe.teacher.class_map
        named["teacher.class_names"] = Path(recipe.teacher.class_names) if recipe.teacher.class_names else None
    return {name: sha256_file(path) for name, path in named.items() if isinstance(path, Path) and path.is_file()}


def digest(value: Any) -> str:
    """sha256 of the canonical JSON of a value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


P = ParamSpec("P")
T = TypeVar("T")


class RunFolder:
    """One run's folder. Nothing is written before a stage has something to write."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def bundle(self) -> Path:
        """The folder that goes to the device."""
        return self.path / "bundle"

    @property
    def engines(self) -> Path:
        """The folder of TensorRT engines, one folder in it for each device."""
        return self.path / "engines"

    def weights(self, role: str) -> Path:
        """`teacher.safetensors` or `student.safetensors`."""
        return self.path / f"{role}.safetensors"

    def log(self, role: str) -> Path:
        """The training log of a role, one JSON record a line."""
        return self.path / ("train.jsonl" if role == "student" else f"{role}.train.jsonl")

    @property
    def teacher_cache(self) -> Path:
        """The folder of teacher outputs, where the recipe names no other."""
        return self.path / "teacher_cache"

    def checkpoints(self, role: str) -> Path:
        """The folder of a role's checkpoints."""
        return self.path / "checkpoint" / role

    @property
    def trackers(self) -> Path:
        """The folder of the experiment trackers' own files."""
        return self.path / "trackers"

    def create(self) -> None:
        """Make the folder and prove that it can be written to.

        Raises:
            EnvironmentProblem: it cannot.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):  # no name that a link could have
                pass
        except OSError as error:
            raise EnvironmentProblem(
                f"{self.path} cannot be written to: {error.strerror}.", "Choose another folder with --out."
            ) from error

    @contextlib.contextmanager
    def writing(self, warn: Callable[[str], None]) -> Iterator[None]:
        """Hold the folder alone while the body writes into it; of several processes that train, the leader does.

        Whoever holds it already, as `run` does for its stages, may take it again.

        Args:
            warn: called where the file system has no locks.

        Raises:
            EnvironmentProblem: another process writes to it, or it cannot be written to.
        """
        if not place_of_this_process().leads:
            yield
            return
        with hold_folder(self.path, warn, names=_WRITTEN, folders=_WRITTEN_FOLDERS):
            refuse_links(self.path, ("teacher_cache", "trackers/*"))
            yield

    def write_recipe(self, recipe: Recipe) -> None:
        """Keep the resolved recipe beside what is made from it."""
        data = dump_recipe(recipe).encode()
        path = self / "recipe.yaml"
        with self.writing(lambda _: None):  # a stage, which warns, holds the folder already
            if not path.is_file() or path.stat().st_size != len(data) or path.read_bytes() != data:
                write_atomic(path, data)

    def keep(self, recipe: Recipe, sections: Iterable[str]) -> None:
        """Write some sections of a recipe into that of the run, so that the next command means the same.

        The others stay: a command that is given another key of the training's has not trained with it.

        Args:
            recipe: what a command ran with.
            sections: by their names in the file.
        """
        if not (self / "recipe.yaml").is_file():
            self.write_recipe(recipe)
            return
        names = [name for name, info in Recipe.model_fields.items() if (info.alias or name) in set(sections)]
        self.write_recipe(self.read_recipe().model_copy(update={name: getattr(recipe, name) for name in names}))

    def read_recipe(self, overrides: tuple[str, ...] | list[str] = ()) -> Recipe:
        """The recipe that the run was made from, with overrides.

        Raises:
            DataError: this is no run folder.
        """
        path = self / "recipe.yaml"
        if not path.is_file():
            if self.path.name == "bundle" and (self.path.parent / "recipe.yaml").is_file():
                raise DataError(
                    f"{self.path}: there is no bundle here, and it is no run folder either.",
                    f"Make the bundle: dskd-compress export {shlex.quote(str(self.path.parent))}",
                )
            raise DataError(
                f"{self.path} is not a run folder: it holds no recipe.yaml.",
                "Give the folder that 'dskd-compress distill' or 'run' wrote.",
            )
        return load_recipe(str(path), overrides)

    def write_document(self, name: str, document: Document) -> Path:
        """Write one JSON document."""
        path = self / name
        write_atomic(path, document.model_dump_json(indent=2) + "\n")
        return path

    def require(self, name: str, stage: str) -> Path:
        """A file that an earlier stage wrote.

        Raises:
            DataError: it is not there; the message names the command that makes it.
        """
        path = self / name
        if not path.exists():
            run = shlex.quote(str(self.path))
            how = (
                f"dskd-compress {stage} {run}"
                if (self / "recipe.yaml").is_file()
                else f"dskd-compress {stage} --out {run}, with the recipe and the images of this command"
            )
            raise DataError(f"{path} is missing.", f"Make it first: {how}")
        return path

    # --- the state of stages

    def inputs(self, stage_name: str, recipe: Recipe) -> dict[str, str]:
        """Hash what a stage reads; called before it reads, so that a file that changes later shows as changed."""
        stage = stage_named(stage_name)
        within = {name: sha256_file(self / name) for name in stage.inputs if (self / name).is_file()}
        return {**within, **_outside(stage, recipe)}

    def _settings(self, stage: Stage, recipe: Recipe) -> dict[str, str]:
        return {name: digest(value) for name, value in stage.settings(recipe).items()}

    def settings_digest(self, stage_name: str, recipe: Recipe, inputs: Mapping[str, str]) -> str:
        """One digest of all that shapes a stage's result; checkpoints are bound to it."""
        stage = stage_named(stage_name)
        return digest([self._settings(stage, recipe), {**_outside(stage, recipe), **inputs}])

    def why_rerun(self, stage_name: str, recipe: Recipe, data_sha256: str | None = None) -> str | None:
        """Why a stage has to run, in words; None where its results are still those of these inputs.

        Args:
            stage_name: one of `STAGE_NAMES`.
            recipe: what is asked for now.
            data_sha256: of the images as they are now; None does not ask.
        """
        stage = stage_named(stage_name)
        path = self / f"stages/{stage_name}.json"
        if not path.exists():
            return "it has not run yet"
        try:
            record = read_document(path, StageRecord)
        except DataError:
            return "its record is damaged"
        for name, value in self._settings(stage, recipe).items():
            if record.settings_sha256.get(name) != value:
                return f"{name} changed in the recipe"
        inputs = self.inputs(stage_name, recipe)
        for name in sorted((inputs.keys() | record.inputs.keys()) - {"data"}):
            if inputs.get(name) != record.inputs.get(name):
                return f"{name} changed"
        if data_sha256 is not None and record.inputs.get("data", data_sha256) != data_sha256:
            return "the images changed"
        for name, value in record.outputs.items():
            if not (self / name).is_file():
                return f"{name} is missing"
            if sha256_file(self / name) != value:
                return f"{name} was altered"
        return None

    def record_stage(
        self,
        stage_name: str,
        recipe: Recipe,
        provenance: Provenance,
        inputs: Mapping[str, str],
        data_sha256: str | None = None,
    ) -> None:
        """Write down what a finished stage read and wrote, and keep the settings that it was given.

        Args:
            stage_name: one of `STAGE_NAMES`.
            recipe: that it ran.
            provenance: of the result.
            inputs: as `inputs` gave them before the stage read anything.
            data_sha256: of the images that it used; None: it used none.
        """
        stage = stage_named(stage_name)
        self.keep(recipe, stage.settings(recipe))
        data = {} if data_sha256 is None else {"data": data_sha256}
        there = [name for name in stage.outputs + stage.optional if (self / name).is_file()]
        record = StageRecord(
            stage=stage_name,
            settings_sha256=self._settings(stage, recipe),
            inputs={**inputs, **data},
            outputs={name: sha256_file(self / name) for name in there},
            provenance=provenance,
        )
        self.write_document(f"stages/{stage_name}.json", record)

    def results(self, stage_name: str, recipe: Recipe) -> RunResults:
        """Take the results of a stage; called before the stage reads anything, whose inputs are hashed now."""
        return RunResults(self, stage_name, recipe, self.inputs(stage_name, recipe))


@dataclass(frozen=True)
class RunResults:
    """The run folder for one stage: a `ResultsFolder`.

    Attributes:
        folder: of the run.
        stage: one of `STAGE_NAMES`.
        recipe: that the stage runs.
        inputs: sha256 of what it reads.
    """

    folder: RunFolder
    stage: str
    recipe: Recipe
    inputs: Mapping[str, str]

    @property
    def path(self) -> Path:
        """Of the run folder."""
        return self.folder.path

    def write(self, document: Measurement, data_sha256: str | None = None) -> None:
        """See `ResultsFolder.write`; also keeps the settings that the stage was given."""
        write_atomic(self.folder / stage_named(self.stage).outputs[0], document.model_dump_json(indent=2) + "\n")
        self.folder.record_stage(self.stage, self.recipe, document.provenance, self.inputs, data_sha256)


def writes_run(
    stage: Callable[Concatenate[Recipe, RunFolder, Output, P], T],
) -> Callable[Concatenate[Recipe, RunFolder, Output, P], T]:
    """Let a stage hold its run folder alone while it runs: see `RunFolder.writing`."""

    @functools.wraps(stage)
    def held(recipe: Recipe, folder: RunFolder, output: Output, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with folder.writing(output.warn):
            return stage(recipe, folder, output, *args, **kwargs)

    return held


def recipe_sha256(recipe: Section) -> str:
    """Digest of the whole recipe."""
    return digest(section_digests(recipe))


__all__ = ["STAGES", "STAGE_NAMES", "RunFolder", "Stage", "recipe_sha256", "writes_run"]
