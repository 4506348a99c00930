"""One run's folder: names of its files, its lock, its recipe, and the state of its stages."""

from __future__ import annotations

import contextlib
import functools
import shlex
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from dskd_compress.config import Recipe, Section
from dskd_compress.console import Output
from dskd_compress.launch import get_process_rank
from dskd_compress.recipe import dump_recipe, load_recipe, section_digests
from dskd_compress.recipe.files import explain_other
from dskd_compress.run_folder.stages import WRITTEN, WRITTEN_FOLDERS, Stage, find_stage, hash_outside_files
from dskd_export.bundle.results import Measurement
from dskd_export.documents.base import Document, Provenance, StageRecord, read_document
from dskd_export.errors import DataError, EnvironmentProblem, RecipeError
from dskd_export.files.atomic import sha256_file, write_atomic
from dskd_export.files.folder_lock import hold_folder, refuse_links
from dskd_export.files.json_text import digest

P = ParamSpec("P")
T = TypeVar("T")


class RunFolder:
    """One run's folder. Nothing is written before a stage has something to write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bundle = path / "bundle"  # what goes to the device
        self.engines = path / "engines"  # of TensorRT, one folder in it for each device
        self.teacher_cache = path / "teacher_cache"  # where the recipe names no other
        self.earlier = path / "earlier"  # trainings that others have replaced
        self.trackers = path / "trackers"  # the experiment trackers' own files

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def weights(self, role: str) -> Path:
        """`teacher.safetensors` or `student.safetensors`."""
        return self.path / f"{role}.safetensors"

    def log(self, role: str) -> Path:
        """The training log of a role, one JSON record a line."""
        return self.path / ("train.jsonl" if role == "student" else f"{role}.train.jsonl")

    def checkpoints(self, role: str) -> Path:
        """The folder of a role's checkpoints."""
        return self.path / "checkpoint" / role

    def create(self) -> None:
        """Create the folder and check that it can be written to.

        Raises:
            EnvironmentProblem: it cannot.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):  # without a name that a link could have
                pass
        except OSError as error:
            raise EnvironmentProblem(
                f"{self.path} cannot be written to: {error.strerror}.", "Choose another folder with --out."
            ) from error

    @contextlib.contextmanager
    def writing(self, warn: Callable[[str], None]) -> Iterator[None]:
        """Lock the folder while the body writes into it; of several processes that train, the main one does.

        A process that holds the lock, as `run` does for its stages, may take it again.

        Args:
            warn: called where the file system has no locks.

        Raises:
            EnvironmentProblem: another process writes to it, or it cannot be written to.
        """
        if not get_process_rank().is_main:
            yield
            return
        with hold_folder(self.path, warn, names=WRITTEN, folders=WRITTEN_FOLDERS):
            refuse_links(self.path, ("teacher_cache", "trackers/*"))
            yield

    def write_recipe(self, recipe: Recipe) -> None:
        """Write the resolved recipe, unless the same one is there."""
        data = dump_recipe(recipe).encode()
        path = self / "recipe.yaml"
        with self.writing(lambda _: None):  # the stage holds the lock already and has warned
            if not path.is_file() or path.stat().st_size != len(data) or path.read_bytes() != data:
                write_atomic(path, data)

    def keep(self, recipe: Recipe, sections: Iterable[str]) -> None:
        """Write sections of a recipe into that of the run, so that the next command uses the same settings.

        Other sections stay: a command that changes a key of the training has not trained with it.
        """
        if not (self / "recipe.yaml").is_file():
            self.write_recipe(recipe)
            return
        names = [name for name, info in Recipe.model_fields.items() if (info.alias or name) in set(sections)]
        self.write_recipe(self.read_recipe().model_copy(update={name: getattr(recipe, name) for name in names}))

    def keep_student_start(self, recipe: Recipe) -> Recipe:
        """Take the weights that the run's student starts from, where the recipe leaves them open (`auto`).

        What was decided at the first start holds for every later stage, whatever the network does.
        """
        student = recipe.student
        if student.pretrained != "auto":
            return recipe
        try:
            if not (self / "recipe.yaml").is_file():
                return recipe
            decided = self.read_recipe().student
        except (PermissionError, RecipeError, DataError):  # reported where the folder is read or written to
            return recipe
        same = (decided.name, decided.kwargs, decided.checkpoint) == (student.name, student.kwargs, None)
        if decided.pretrained == "auto" or not same:
            return recipe
        student = student.model_copy(update={"pretrained": decided.pretrained})
        return recipe.model_copy(update={"student": student})

    def read_recipe(self, overrides: Sequence[str] = ()) -> Recipe:
        """Read the run's recipe, with overrides; a pair to compare is of one call, and taken from these alone.

        Raises:
            DataError: this is no run folder.
        """
        path = self / "recipe.yaml"
        if not path.is_file():
            in_a_run = self.path.name == "bundle" and (self.path.parent / "recipe.yaml").is_file()
            if in_a_run and not (self / "manifest.json").is_file():
                raise DataError(
                    f"{self.path} holds neither a bundle nor a run.",
                    f"Make the bundle: dskd-compress export {shlex.quote(str(self.path.parent))}",
                )
            if (other := explain_other(self.path, overrides)) is not None:
                raise DataError(f"{self.path} is {other[0]}, not a run folder.", other[1])
            raise DataError(
                f"{self.path} is not a run folder: it holds no recipe.yaml.",
                "Give a folder that dskd-compress distill or run has written.",
            )
        return load_recipe(str(path), ["validate.pair=null", *overrides])

    def write_document(self, name: str, document: Document) -> Path:
        """Write one JSON document."""
        path = self / name
        write_atomic(path, document.model_dump_json(indent=2) + "\n")
        return path

    def require(self, name: str, stage: str) -> Path:
        """Return the path of a file that an earlier stage wrote.

        Raises:
            DataError: it is missing; the hint is the command that makes it.
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
        """Hash the inputs of a stage; call it before the stage reads, so that a later change shows."""
        stage = find_stage(stage_name)
        names = [name for name in stage.inputs if (self / name).is_file()]
        if recipe.teacher.train is None:  # one that an earlier recipe trained does not teach
            names = [name for name in names if name != self.weights("teacher").name]
        within = {name: sha256_file(self / name) for name in names}
        return {**within, **hash_outside_files(stage, recipe)}

    def _settings(self, stage: Stage, recipe: Recipe) -> dict[str, str]:
        return {name: digest(value) for name, value in stage.settings(recipe).items()}

    def settings_digest(self, stage_name: str, recipe: Recipe, inputs: Mapping[str, str]) -> str:
        """Digest everything that shapes a stage's result; checkpoints are bound to it."""
        stage = find_stage(stage_name)
        return digest([self._settings(stage, recipe), {**hash_outside_files(stage, recipe), **inputs}])

    def hash_outside(self, stage_name: str, recipe: Recipe) -> dict[str, str]:
        """Hash the files that the recipe names outside the run folder."""
        return hash_outside_files(find_stage(stage_name), recipe)

    def why_rerun(self, stage_name: str, recipe: Recipe, data_sha256: str | None = None) -> str | None:
        """Return the reason why a stage has to run; None where it is up to date.

        Args:
            data_sha256: of the current images; None: not compared.
        """
        stage = find_stage(stage_name)
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
        """Record what a finished stage read and wrote, and keep its settings in the run's recipe.

        Args:
            inputs: as `inputs` gave them before the stage read anything.
            data_sha256: of its images; None: it used none.
        """
        stage = find_stage(stage_name)
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
    """The run folder for one stage: a `ResultsFolder`."""

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
        write_atomic(self.folder / find_stage(self.stage).outputs[0], document.model_dump_json(indent=2) + "\n")
        self.folder.record_stage(self.stage, self.recipe, document.provenance, self.inputs, data_sha256)


def writes_run(
    stage: Callable[Concatenate[Recipe, RunFolder, Output, P], T],
) -> Callable[Concatenate[Recipe, RunFolder, Output, P], T]:
    """Lock the run folder while a stage runs: see `RunFolder.writing`."""

    @functools.wraps(stage)
    def run_locked(recipe: Recipe, folder: RunFolder, output: Output, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with folder.writing(output.warn):
            return stage(recipe, folder, output, *args, **kwargs)

    return run_locked


def recipe_sha256(recipe: Section) -> str:
    """Digest the whole recipe."""
    return digest(section_digests(recipe))
