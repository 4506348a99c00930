"""The Python API: the commands as functions that take a recipe or a run folder and return the typed document.

Every function takes recipe keys as keywords, a section as a dictionary of the keys to change:
`distill("recipe.yaml", train={"epochs": 3, "lr": 0.01}, seed=1)`. They print nothing unless `progress=True`,
then what the command prints. They raise the errors of `dskd_export.errors`, lock the run folder while they write,
and keep the settings in the run's recipe, as the commands do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from dskd_compress.shortages import explain_error

if TYPE_CHECKING:
    from dskd_compress.config import Recipe
    from dskd_compress.console import Output
    from dskd_compress.run_folder import RunFolder
    from dskd_export.documents.benchmark import BenchmarkDocument
    from dskd_export.documents.export import ExportDocument
    from dskd_export.documents.training import TrainingDocument
    from dskd_export.documents.validation import ValidationDocument

P = ParamSpec("P")
T = TypeVar("T")


def _raising_ours(function: Callable[P, T]) -> Callable[P, T]:
    """Raise what a user can act on as an error of `dskd_export.errors`."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            ours = explain_error(error)
            if ours is error:
                raise
            raise ours from error

    return call


@_raising_ours
def load_recipe(recipe: Recipe | Path | str | None = None, **overrides: Any) -> Recipe:
    """Load a recipe: by name, from a file or a run folder, or made of the keywords alone.

    Raises:
        RecipeError: it is not valid; the message lists every fault.
        UsageError: without a recipe, teacher, student and data must be given.
    """
    return _resolve(recipe, None, overrides)[0]


@_raising_ours
def distill(
    recipe: Recipe | Path | str | None = None,
    out: Path | str | None = None,
    *,
    progress: bool = False,
    **overrides: Any,
) -> TrainingDocument:
    """Train the student from the teacher; first the teacher, where the recipe trains it.

    An interrupted training resumes, and a finished one whose recipe and images are the same is not repeated.

    Args:
        recipe: see `load_recipe`.
        out: run folder to write; None: that of the recipe, else `runs/<recipe name>`.

    Returns:
        The content of `distill.json`.

    Raises:
        DataError, ModelError, EnvironmentProblem: see the message.
    """
    loaded, folder, _ = _resolve(recipe, out, overrides)
    from dskd_compress.run_folder import DISTILL
    from dskd_compress.stages.pipeline import run_pipeline
    from dskd_export.documents.base import read_document
    from dskd_export.documents.training import TrainingDocument

    for _ in run_pipeline(loaded, folder, _output(progress), last=DISTILL):
        pass
    return read_document(folder / "distill.json", TrainingDocument)


@_raising_ours
def export(run: Path | str, *, progress: bool = False, **overrides: Any) -> ExportDocument:
    """Export the student of a run to ONNX and write its bundle.

    Args:
        run: run folder.
        overrides: recipe keys, for example `export={"precisions": ["fp16", "int8"]}`.

    Returns:
        The content of `export.json`; the bundle is `<run>/bundle`.

    Raises:
        DataError: the run has no student yet.
        MissingExtra: onnx, or a tool that makes a precision, is not installed.
    """
    recipe, folder, changes = _resolve_run(run, overrides)
    from dskd_compress.precisions import settle_precisions
    from dskd_compress.stages.export import run_export
    from dskd_export.documents.base import read_document
    from dskd_export.documents.export import ExportDocument

    output = _output(progress)
    recipe, said = settle_precisions(recipe, folder, changes)
    for sentence in said:
        output.plain(sentence)
    run_export(recipe, folder, output)
    return read_document(folder / "export.json", ExportDocument)


@_raising_ours
def validate(
    source: Path | str,
    *,
    images: Path | str | None = None,
    out: Path | str | None = None,
    progress: bool = False,
    **overrides: Any,
) -> ValidationDocument:
    """Judge the student against its teacher, and the exported models against the student.

    Args:
        source: run folder, or bundle.
        images: labelled images for a bundle; a run has its own.
        out: folder for the results of a bundle; None: `results/<bundle>/<device>`.
        overrides: recipe keys; of a bundle those of validate and budget.

    Returns:
        The content of `validation.json`. A verdict that is not PASS raises nothing: see `verdict`.
    """
    from dskd_compress.stages.validate import run_validate, validate_bundle
    from dskd_export.bundle.source import is_bundle

    if is_bundle(Path(source)):
        return validate_bundle(Path(source), _changes(overrides), _path(images), _path(out), _output(progress))[0]
    _refuse_for_a_run(images=images, out=out)
    recipe, folder, _ = _resolve_run(source, overrides)
    return run_validate(recipe, folder, _output(progress))


@_raising_ours
def benchmark(
    source: Path | str,
    *,
    images: Path | str | None = None,
    out: Path | str | None = None,
    fresh: bool = False,
    progress: bool = False,
    **overrides: Any,
) -> BenchmarkDocument:
    """Measure latency, throughput and energy of the models of a run or a bundle.

    Args:
        source: run folder, or bundle.
        images: labelled images for a bundle; None: noise. A run has its own.
        out: folder for the results of a bundle; None: `results/<bundle>/<device>`.
        fresh: repeat what an interrupted benchmark has measured already.
        overrides: recipe keys; of a bundle those of benchmark and budget.

    Returns:
        The content of `benchmark.json`. A missed budget raises nothing: see `judgements`.
    """
    from dskd_compress.stages.benchmark import benchmark_bundle, run_benchmark
    from dskd_export.bundle.source import is_bundle

    if is_bundle(Path(source)):
        changes, output = _changes(overrides), _output(progress)
        return benchmark_bundle(Path(source), changes, _path(images), _path(out), output, fresh=fresh)[0]
    _refuse_for_a_run(images=images, out=out)
    recipe, folder, _ = _resolve_run(source, overrides)
    return run_benchmark(recipe, folder, _output(progress), fresh=fresh)


@_raising_ours
def report(*sources: Path | str, out: Path | str | None = None, progress: bool = False, **overrides: Any) -> Path:
    """Write the report of a run; of several runs and results of bundles, one report that compares them.

    Args:
        sources: run folders, results of bundles, or folders of these.
        out: HTML file; needed where there are several sources.
        overrides: recipe keys, for example `report={"title": "Bolts, revision 4"}`.

    Returns:
        The HTML file; Markdown and CSV lie next to it.
    """
    from dskd_compress.stages.report import report_sources
    from dskd_export.errors import UsageError

    if not sources:
        raise UsageError("A report needs at least one run folder.", 'Name it: report("runs/r18")')
    paths = [Path(source) for source in sources]
    return report_sources(paths, _path(out), _changes(overrides), _output(progress)).html


def _output(progress: bool) -> Output:
    from dskd_compress.console import Output

    return Output(json_output=False, quiet=not progress)


def _path(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path)


def _changes(overrides: dict[str, Any]) -> list[str]:
    from dskd_compress.recipe.overrides import overrides_from_keywords

    return overrides_from_keywords(overrides)


def _resolve(
    recipe: Recipe | Path | str | None, out: Path | str | None, overrides: dict[str, Any]
) -> tuple[Recipe, RunFolder, list[str]]:
    from dskd_compress.run_folder import resolve_run

    changes = _changes(overrides)
    return *resolve_run(recipe, _path(out), changes), changes


def _resolve_run(run: Path | str, overrides: dict[str, Any]) -> tuple[Recipe, RunFolder, list[str]]:
    from dskd_compress.run_folder import RunFolder

    folder, changes = RunFolder(Path(run)), _changes(overrides)
    return folder.read_recipe(changes), folder, changes


def _refuse_for_a_run(**given: object) -> None:
    from dskd_export.errors import UsageError

    if named := [name for name, value in given.items() if value is not None]:
        raise UsageError(
            f"{' and '.join(named)}: a run has its own images and keeps its own results.",
            f"Leave {' and '.join(named)} out, or give the bundle of the run.",
        )
