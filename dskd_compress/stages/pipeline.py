"""The pipeline: run the stages that changed, skip the others, print why."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass

from dskd_compress.config import Recipe
from dskd_compress.console import Output
from dskd_compress.preflight import ReadyRun, check_run, find_reasons
from dskd_compress.required_packages import check_tools
from dskd_compress.run_folder import (
    BENCHMARK,
    DISTILL,
    EXPORT,
    REPORT,
    STAGE_NAMES,
    TRAIN,
    TUNE,
    VALIDATE,
    RunFolder,
    list_stages,
)
from dskd_compress.show.benchmark import print_judgements
from dskd_compress.show.next_steps import print_next_steps
from dskd_compress.show.preflight import print_preflight, print_stages
from dskd_compress.show.validation import decision_in, print_decision, print_validation
from dskd_compress.stages.benchmark import run_benchmark
from dskd_compress.stages.distill import run_distill
from dskd_compress.stages.export import run_export
from dskd_compress.stages.report import run_report
from dskd_compress.stages.train import run_train
from dskd_compress.stages.tune import run_tune
from dskd_compress.stages.validate import run_validate
from dskd_export.documents.base import read_document
from dskd_export.documents.benchmark import BenchmarkDocument
from dskd_export.documents.validation import ValidationDocument
from dskd_export.errors import UsageError
from dskd_export.report.load import load_run
from dskd_export.report.next_steps import NextStep, list_next_steps

RUN: dict[str, Callable[[Recipe, RunFolder, Output], object]] = {
    TRAIN: run_train,
    DISTILL: run_distill,
    TUNE: run_tune,
    EXPORT: run_export,
    VALIDATE: run_validate,
    BENCHMARK: run_benchmark,
    REPORT: run_report,
}


@dataclass(frozen=True)
class StageOutcome:
    """Outcome of a stage."""

    stage: str
    ran: bool
    why: str


def select_stages(recipe: Recipe, first: str | None, last: str | None) -> list[str]:
    """Select the stages of the recipe from `first` to `last`, both included.

    Raises:
        UsageError: no such stage, or an empty range.
    """
    for option, name in (("--from", first), ("--to", last)):
        if name is not None and name not in STAGE_NAMES:
            raise UsageError(f"{option}: '{name}' is no stage.", f"Choose one of: {', '.join(STAGE_NAMES)}.")
    begin = STAGE_NAMES.index(first) if first else 0
    end = STAGE_NAMES.index(last) if last else len(STAGE_NAMES) - 1
    if begin > end:
        raise UsageError(f"--from {first} comes after --to {last}.", f"The order is: {', '.join(STAGE_NAMES)}.")
    wanted = STAGE_NAMES[begin : end + 1]
    return [stage.name for stage in list_stages(recipe) if stage.name in wanted]


def run_pipeline(
    recipe: Recipe, folder: RunFolder, output: Output, *, first: str | None = None, last: str | None = None
) -> Iterator[StageOutcome]:
    """Run a recipe's stages in order; a stage named by `first` runs even if nothing changed.

    Before the first of them all requirements are checked. A verdict does not stop the later stages: the report
    shows it. The recipe of the run keeps all settings that it was given, whatever ran.

    Raises:
        EnvironmentProblem: another process writes to the run folder.
        UsageError: no such stage, an empty range, or a pair to compare in place of the student.
        DskdError: as `check_run`; nothing has run yet.
    """
    ready = _prepare(recipe, folder, output, first, last)
    if ready.preflight.pending:
        print_preflight(ready.preflight, output)
    with folder.writing(output.warn):
        yield from _run_stages(ready, folder, output, first, last)


def plan_pipeline(
    recipe: Recipe, folder: RunFolder, output: Output, *, first: str | None = None, last: str | None = None
) -> None:
    """Check all requirements of a run and print its plan; nothing is trained or written.

    Raises:
        DskdError: as `run_pipeline`.
    """
    ready = _prepare(recipe, folder, output, first, last)
    print_preflight(ready.preflight, output)
    names = select_stages(ready.recipe, first, last)
    pending = find_reasons(ready.recipe, folder, names, first, ready.sets.facts().sha256)
    print_stages(names, pending, output)
    plan = None
    if DISTILL in pending:
        from dskd_compress.stages.plan import make_plan, print_plan

        plan = make_plan(ready.recipe, folder)
        print_plan(plan, output)
    output.result({"run": str(folder.path), "pending": pending, "preflight": ready.preflight, "plan": plan})


def _prepare(recipe: Recipe, folder: RunFolder, output: Output, first: str | None, last: str | None) -> ReadyRun:
    if recipe.validation.pair is not None:
        raise UsageError(
            "validate.pair compares two models in place of the student, which a run judges.",
            "Leave it out: --set validate.pair=null",
        )
    return check_run(recipe, folder, select_stages(recipe, first, last), output, first=first)


def _run_stages(
    ready: ReadyRun, folder: RunFolder, output: Output, first: str | None, last: str | None
) -> Iterator[StageOutcome]:
    recipe = ready.recipe
    names = select_stages(recipe, first, last)
    data_sha256 = ready.sets.facts().sha256
    pending = list(find_reasons(recipe, folder, names, first, data_sha256))
    # Other images repeat more stages than the checks before the run knew.
    check_tools(recipe, names[names.index(pending[0]) :] if pending else [])
    for name in names:
        why = find_reasons(recipe, folder, [name], first, data_sha256).get(name)
        if why is None:
            output.print(f"[dim]{name}: unchanged, skipped[/dim]")
            yield StageOutcome(name, ran=False, why="unchanged")
            continue
        output.print(f"[bold]{name}[/bold]: {why}")
        RUN[name](recipe, folder, output)
        recipe = folder.keep_student_start(recipe)
        folder.write_recipe(recipe)  # also where the training, which writes it first, was skipped
        yield StageOutcome(name, ran=True, why=why)
    if names:
        folder.write_recipe(recipe)  # flags of a stage that was not selected are kept as well


def print_outcomes(
    outcomes: Sequence[StageOutcome], folder: RunFolder, output: Output
) -> tuple[ValidationDocument | None, BenchmarkDocument | None]:
    """Print what the stages of `run` found and what its report shows, and give the verdicts.

    What a person has to read comes last: the decision, what to try next, the report's path.

    A document is None where neither its stage nor the report was part of the run, and where it is outdated.
    """
    stages = {outcome.stage: outcome for outcome in outcomes}
    outdated = _find_outdated(folder, stages) if REPORT in stages else {}
    shown = {VALIDATE, BENCHMARK} - outdated.keys() if REPORT in stages else stages.keys()
    document = read_document(folder / "validation.json", ValidationDocument) if VALIDATE in shown else None
    timed = read_document(folder / "benchmark.json", BenchmarkDocument) if BENCHMARK in shown else None
    decision = decision_in(folder.path, document)
    if document is not None:
        print_validation(document, decision, output)
    if timed is not None:
        print_judgements("Budget", timed.judgements, output)
    if document is not None:
        print_decision(decision, output)
    if document is None and VALIDATE in outdated:
        run = shlex.quote(str(folder.path))
        output.plain(f"Not checked: validate: {outdated[VALIDATE]}. Run: dskd-compress validate {run}")
    report, steps = folder / "report.html", list[NextStep]()
    if REPORT in stages:
        steps = list_next_steps(load_run(folder.path))
        print_next_steps(steps, output)
        output.plain(f"Report: {report}")
    output.result(
        {
            "run": str(folder.path),
            "stages": [vars(outcome) for outcome in outcomes],
            "verdict": None if document is None else document.verdict,
            "passed": None if document is None else document.passed,
            "decision": None if document is None else decision.sentence,
            "ship": None if document is None or decision.verdict != "PASS" else vars(decision.model),
            "report": str(report) if REPORT in stages else None,
            "next_steps": [vars(step) for step in steps],
        }
    )
    return document, timed


def _find_outdated(folder: RunFolder, stages: Container[str]) -> dict[str, str]:
    """Find why what `validate` and `benchmark` wrote does not hold, where the stage was not part of the run."""
    recipe = folder.read_recipe()
    found = {name: folder.why_rerun(name, recipe) for name in (VALIDATE, BENCHMARK) if name not in stages}
    return {name: why for name, why in found.items() if why is not None}
