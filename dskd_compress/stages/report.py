"""Everything that a run folder holds, on one page."""

from __future__ import annotations

from pathlib import Path

from dskd_compress.config import Recipe
from dskd_compress.console import Output
from dskd_compress.run_folder import REPORT, RunFolder, recipe_sha256
from dskd_export.files import write_atomic
from dskd_export.provenance import Stopwatch
from dskd_export.report import build_report


def run_report(recipe: Recipe, folder: RunFolder, output: Output) -> Path:
    """Write `report.html` and `report.md`; returns the path of the HTML."""
    watch = Stopwatch()
    report = build_report(folder.path, title=recipe.report.title)
    path = folder / "report.html"
    write_atomic(path, report.html)
    write_atomic(folder / "report.md", report.markdown)
    provenance = watch.provenance(seed=recipe.seed, device="cpu", recipe_sha256=recipe_sha256(recipe))
    folder.record_stage(REPORT, recipe, provenance)
    return path
