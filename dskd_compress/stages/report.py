"""Report of a run folder, or of several. Needs no torch."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dskd_compress.config import Recipe
from dskd_compress.console import Output
from dskd_compress.recipe import bundle_settings
from dskd_compress.run_folder import MODEL_CARD, REPORT, RunFolder, recipe_sha256, writes_run
from dskd_export.bundle.results import hold_results
from dskd_export.errors import DataError, UsageError
from dskd_export.files.atomic import write_atomic
from dskd_export.provenance import Stopwatch
from dskd_export.report import Report, build_comparison, build_report
from dskd_export.report.card import model_card
from dskd_export.report.load import load_run
from dskd_export.report.staleness import FileHashes, check_stages


@dataclass(frozen=True)
class Written:
    """The files of a report."""

    html: Path
    markdown: Path
    csv: Path


@writes_run
def run_report(recipe: Recipe, folder: RunFolder, output: Output) -> Written:
    """Write `report.html`, `report.md` and `report.csv` into a run folder, and `MODEL_CARD.md` of its student."""
    watch = Stopwatch()
    inputs = folder.inputs(REPORT, recipe)
    run = load_run(folder.path)
    if run.student is not None:
        stale = [one.record.stage for one in check_stages(run.stages, FileHashes(folder.path)) if one.stale]
        write_atomic(folder / MODEL_CARD, model_card(run, name=folder.path.resolve().name, stale=stale))
    written = write_report(build_report(folder.path, title=recipe.report.title), folder / "report.html")
    provenance = watch.provenance(seed=recipe.seed, device="cpu", recipe_sha256=recipe_sha256(recipe))
    folder.record_stage(REPORT, recipe, provenance, inputs)
    return written


def report_sources(sources: Sequence[Path], out: Path | None, overrides: list[str], output: Output) -> Written:
    """Write the report of run folders, results of bundles on devices, or folders of these.

    Raises what `find_results` and `report_several` do.
    """
    folders = [folder for source in sources for folder in find_results(source)]
    first = folders[0]
    if len(folders) == 1 and out is None:
        if (first / "recipe.yaml").is_file() or not (first / "stages").is_dir():
            run = RunFolder(first)
            return run_report(run.read_recipe(overrides), run, output)
        out = first / "report.html"
    return report_several(folders, out, overrides, output)


def report_several(folders: Sequence[Path], out: Path | None, overrides: list[str], output: Output) -> Written:
    """Write a report of several folders.

    Args:
        out: the HTML file; the others get its name with another ending.

    Raises:
        DataError: a folder holds no results.
        UsageError: `out` is missing, or no `.html` file; or another key than report.title is set.
    """
    if out is None:
        raise UsageError(f"{len(folders)} folders make one report.", "Name the file: --out report.html")
    if out.suffix != ".html":
        raise UsageError(f"--out {out}: the report is an HTML file.", f"Name it {out.with_suffix('.html')}")
    title = bundle_settings(overrides, ("report",)).report.title
    report = build_report(folders[0], title=title) if len(folders) == 1 else build_comparison(folders, title=title)
    holds_results = any((out.parent / name).exists() for name in ("recipe.yaml", "stages"))
    with hold_results(out.parent, output.warn) if holds_results else contextlib.nullcontext():
        return write_report(report, out)


def find_results(source: Path) -> list[Path]:
    """List the folders of results in a source: itself, or those of the devices within it.

    Raises:
        DataError: it is not a folder.
    """
    if not source.is_dir():
        raise DataError(f"{source}: no such folder.", "Give a run folder, or the --out folder of validate.")
    if (source / "recipe.yaml").is_file() or (source / "stages").is_dir() or (source / "benchmark.json").is_file():
        return [source]
    devices = sorted(path.parent for path in source.glob("*/benchmark.json"))
    devices += sorted(path.parent for path in source.glob("*/validation.json") if path.parent not in devices)
    return devices or [source]


def write_report(report: Report, html: Path) -> Written:
    """Write the report as HTML, Markdown and CSV."""
    written = Written(html, html.with_suffix(".md"), html.with_suffix(".csv"))
    write_atomic(written.html, report.html)
    write_atomic(written.markdown, report.markdown)
    write_atomic(written.csv, report.csv)
    return written
