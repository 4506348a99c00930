"""Several methods under one budget: the same steps, data order and initial student, seed by seed.

    OUT/teacher/                     the teacher, where the recipe trains one: once for all
    OUT/LABEL/seed-N/                one run folder each, as `distill` writes it
    OUT/compare.json  compare.md     the table

Every run is a separate process, so that its peak memory is its own. A run that was killed resumes when the
comparison is started again; a finished one is kept as long as its recipe is the same.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dskd_compress.comparison import check_fair, compute_differences, compute_mean_interval, format_markdown
from dskd_compress.config import Recipe
from dskd_compress.console import Output
from dskd_compress.recipe import dump_recipe
from dskd_compress.run_folder import DISTILL, TRAIN, RunFolder, recipe_sha256
from dskd_export.child_process import make_module_command, stop_children
from dskd_export.codes import CODES
from dskd_export.documents.base import read_document
from dskd_export.documents.training import ComparedMethod, ComparisonDocument, TrainingDocument
from dskd_export.errors import DskdError, Interrupted, UsageError
from dskd_export.files.atomic import open_log, write_atomic
from dskd_export.files.folder_lock import hold_folder
from dskd_export.provenance import Stopwatch

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class Variant:
    """A method with its settings, under a name."""

    label: str
    overrides: tuple[str, ...]  # what it changes in the recipe, `section.key=value`

    @classmethod
    def parse(cls, text: str) -> Variant:
        """`LABEL=METHOD key=value ...`, the keys those of the method; `a.b=c` is any key of the recipe.

        Raises:
            UsageError: it is not written like that.
        """
        label, equals, rest = text.partition("=")
        words = rest.split()
        if not equals or not words or not LABEL.fullmatch(label) or any("=" not in word for word in words[1:]):
            raise UsageError(
                f"--variant '{text}' cannot be read.",
                "Write it as LABEL=METHOD key=value ..., for example 'dskd-map=dskd tap=map guide_scale=0'.",
            )
        changes = [word if "." in word.partition("=")[0] else f"method.{word}" for word in words[1:]]
        return cls(label, (f"method.name={words[0]}", *changes))


def parse_variants(methods: str, variants: Sequence[str], against: str | None) -> list[Variant]:
    """Read `--methods` and `--variant`.

    Raises:
        UsageError: a variant cannot be read, or `against` is none of them.
    """
    names = [word.strip() for word in methods.split(",") if word.strip()]
    found = [Variant(name, (f"method.name={name}",)) for name in names]
    found += [Variant.parse(text) for text in variants]
    labels = [variant.label for variant in found]
    if against is not None and against not in labels:
        raise UsageError(f"--against: '{against}' is none of the methods.", f"Choose one of: {', '.join(labels)}.")
    return found


def parse_seeds(text: str) -> list[int]:
    """Read `--seeds`.

    Raises:
        UsageError: it is no list of numbers.
    """
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--seeds: '{text}' is no list of numbers.", "Write for example --seeds 0,1,2") from error


@dataclass(frozen=True)
class Run:
    """One training of a comparison."""

    label: str
    seed: int
    recipe: Recipe
    folder: RunFolder


def plan_runs(
    load: Callable[[Sequence[str]], Recipe], variants: Sequence[Variant], seeds: Sequence[int], out: Path
) -> list[Run]:
    """Plan all runs, seed by seed: an unfinished comparison then has whole seeds first.

    Args:
        load: overrides -> the recipe with them.

    Raises:
        UsageError: nothing to compare, or a label or a seed is there twice.
        RecipeError: a variant's settings are not valid.
    """
    labels = [variant.label for variant in variants]
    for what, values in (("method", labels), ("seed", [str(seed) for seed in seeds])):
        if not values:
            raise UsageError(f"There is no {what} to compare.", "See: dskd-compress compare --help")
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise UsageError(f"The {what} {', '.join(twice)} is there twice.", "Name each once.")
    runs = []
    for seed in seeds:
        for variant in variants:
            recipe = load([*variant.overrides, f"seed={seed}"])
            runs.append(Run(variant.label, seed, recipe, RunFolder(out / variant.label / f"seed-{seed}")))
    return runs


def run_comparison(
    runs: Sequence[Run],
    out: Path,
    output: Output,
    *,
    epoch: Literal["last", "best"],
    jobs: int,
    against: str,
    source: RunFolder | None = None,
) -> ComparisonDocument:
    """Train the missing runs and write the table.

    Args:
        epoch: whose accuracy counts. The best epoch is chosen on the images that it is measured on.
        against: the method that the table compares the others with.
        jobs: trainings at the same time. They share cores or a GPU, which shows in their seconds.
        source: run that the recipe is of; its teacher is taken where it is up to date.

    Raises:
        DskdError: a training failed; the message is the training's own.
        DataError: the runs do not share images, teacher, steps, or a seed's initial student.
    """
    watch = Stopwatch()
    with hold_folder(out, output.warn, names=("compare.json", "compare.md")):
        runs = _train_missing(runs, out, output, jobs, source)
        documents = {
            (run.label, run.seed): read_document(run.folder / "distill.json", TrainingDocument) for run in runs
        }
        check_fair(documents)
        document = _comparison(runs, documents, epoch, jobs, watch, _find_commonest(runs[0].recipe))
        write_atomic(out / "compare.json", document.model_dump_json(indent=1) + "\n")
        write_atomic(out / "compare.md", format_markdown(document, against))
    return document


def _find_commonest(recipe: Recipe) -> tuple[str, float] | None:
    """Find the commonest class of the validation images and its share; None: a stream, which does not tell."""
    from dskd_compress.data import StreamSet
    from dskd_compress.stages.setup import open_checked_data

    images = open_checked_data(recipe).val
    if isinstance(images, StreamSet):
        return None
    [(label, count)] = Counter(images.label(index) for index in range(len(images))).most_common(1)
    return images.classes[label], count / len(images)


def _train_missing(
    runs: Sequence[Run], out: Path, output: Output, jobs: int, source: RunFolder | None
) -> list[Run]:
    runs = _decide_start(runs, output)
    if any(run.recipe.needs_teacher for run in runs):
        runs = [_with_trained_teacher(run, out, output, source) for run in runs]
    waiting = [run for run in runs if run.folder.why_rerun(DISTILL, run.recipe) is not None]
    if len(waiting) < len(runs):
        output.print(f"{len(runs) - len(waiting)} of {len(runs)} runs are finished already.")
    with (
        output.progress("Comparing", len(waiting), unit="run") as progress,
        ThreadPoolExecutor(max_workers=jobs) as pool,
    ):
        pending = [pool.submit(_train, run, DISTILL) for run in waiting]
        try:
            for run, future in zip(waiting, pending, strict=True):
                progress.update(description=f"{run.label}, seed {run.seed}")
                future.result()
                progress.advance(1)
        except BaseException as error:
            for future in pending:
                future.cancel()
            if isinstance(error, KeyboardInterrupt):  # Ctrl-C in a terminal reaches them, SIGTERM does not
                stop_children()
            raise
    return list(runs)


def _decide_start(runs: Sequence[Run], output: Output) -> list[Run]:
    """Start every student from the same kind of weights, also where the network is lost halfway."""
    from dskd_compress.stages.setup import decide_student_start, set_student_start

    runs = [replace(run, recipe=run.folder.keep_student_start(run.recipe)) for run in runs]
    if all(run.recipe.student.pretrained != "auto" for run in runs):
        return runs
    known = [run.recipe.student.pretrained for run in runs if run.recipe.student.pretrained != "auto"]
    pretrained, missing = (known[0], "") if known else decide_student_start(runs[0].recipe)
    if missing:
        output.warn(f"The students start from random weights. Pretrained weights: {missing}")
    return [replace(run, recipe=set_student_start(run.recipe, pretrained)) for run in runs]


def _with_trained_teacher(run: Run, out: Path, output: Output, source: RunFolder | None) -> Run:
    """Train the recipe's teacher once, with seed 0, and pass it to every run as a checkpoint.

    That of the run which the recipe is of is taken in its place.
    """
    if run.recipe.teacher.train is None:
        return run
    folder = RunFolder(out / "teacher")
    recipe = run.recipe.model_copy(update={"seed": 0})
    if folder.why_rerun(TRAIN, recipe) is not None and source is not None and _has_teacher(source, run.recipe):
        folder = source
        output.once(f"Teacher: {folder.weights('teacher')}, trained by that run.")
    elif folder.why_rerun(TRAIN, recipe) is not None:
        output.print("Training the teacher, once for all runs.")
        _train(Run("teacher", recipe.seed, recipe, folder), TRAIN)
    teacher = recipe.teacher.model_copy(
        update={"fit": "none", "train": None, "pretrained": False, "checkpoint": folder.weights("teacher")}
    )
    return Run(run.label, run.seed, run.recipe.model_copy(update={"teacher": teacher}), run.folder)


def _has_teacher(source: RunFolder, recipe: Recipe) -> bool:
    """Whether a run has the trained teacher of a recipe, whatever the seed."""
    same_seed = recipe.model_copy(update={"seed": source.read_recipe().seed})
    return source.why_rerun(TRAIN, same_seed) is None


def _train(run: Run, stage: str) -> None:
    """Run one stage in a separate process; its output goes to a file next to the run."""
    run.folder.path.mkdir(parents=True, exist_ok=True)
    recipe = run.folder.path.with_suffix(".yaml")
    log = run.folder.path.with_suffix(".log")
    write_atomic(recipe, dump_recipe(run.recipe))
    command = make_module_command("dskd_compress", stage, str(recipe), "--out", str(run.folder.path))
    with open_log(log, append=False) as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if code == 0:
        return
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = next((line for line in reversed(lines) if line.startswith("error: ")), f"it ended with code {code}")
    said = "interrupted" if code == Interrupted.exit_code else said.removeprefix("error: ")
    known = next((one for one in CODES if said.startswith(f"{one}: ")), None)
    kind = Interrupted if code == Interrupted.exit_code else DskdError
    error = kind(
        f"{run.label}, seed {run.seed}: {said.removeprefix(f'{known}: ')}",
        f"See {log}. The same command resumes what is left.",
        code=known,
    )
    error.exit_code = code if code > 0 else 1
    raise error


def _comparison(
    runs: Sequence[Run],
    documents: dict[tuple[str, int], TrainingDocument],
    epoch: Literal["last", "best"],
    jobs: int,
    watch: Stopwatch,
    commonest: tuple[str, float] | None,
) -> ComparisonDocument:
    labels = list(dict.fromkeys(run.label for run in runs))
    seeds = list(dict.fromkeys(run.seed for run in runs))
    methods = []
    for label in labels:
        mine = [documents[label, seed] for seed in seeds]
        top1 = [(document.last if epoch == "last" else document.best).top1.value for document in mine]
        images = [document.steps * runs[0].recipe.train.batch_size for document in mine]
        methods.append(
            ComparedMethod(
                label=label,
                method=mine[0].method,
                settings=mine[0].method_settings,
                seeds=seeds,
                top1=top1,
                mean=sum(top1) / len(top1),
                interval=compute_mean_interval(top1),
                seconds=[count / document.images_per_s for count, document in zip(images, mine, strict=True)],
                images_per_s=[document.images_per_s for document in mine],
                peak_memory_mb=[document.peak_memory_mb for document in mine],
            )
        )
    # Of a run with a teacher, where there is one: the first may have none.
    first = next((one for one in documents.values() if one.teacher is not None), documents[labels[0], seeds[0]])
    return ComparisonDocument(
        recipe=runs[0].recipe.name,
        teacher=first.teacher.name if first.teacher is not None else runs[0].recipe.teacher.name,
        teacher_top1=first.teacher_accuracy.top1.value if first.teacher_accuracy is not None else None,
        student=first.model.name,
        epoch=epoch,
        steps=first.steps,
        data=first.data,
        commonest_class=None if commonest is None else commonest[0],
        commonest_top1=None if commonest is None else commonest[1],
        methods=methods,
        differences=list(compute_differences(methods)),
        jobs=jobs,
        commits=sorted({one.provenance.commit for one in documents.values() if one.provenance.commit}),
        provenance=watch.provenance(
            seed=seeds[0],
            device=first.provenance.device.device,
            recipe_sha256=recipe_sha256(runs[0].recipe),
        ),
    )
