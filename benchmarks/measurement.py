"""Command lines, ratios with intervals, and result files that the benchmarks share."""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from dskd_export.files.atomic import write_atomic
from dskd_export.provenance import Stopwatch

MISSING_IMAGES = "the real images are missing: set DSKD_TEST_DATA to their folder"


def make_parser(doc: str | None) -> argparse.ArgumentParser:
    """Make the parser of a benchmark, described by the docstring of its module."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def ratio_with_interval(numerator: Sequence[float], denominator: Sequence[float]) -> dict[str, float]:
    """Compute the median ratio of the rounds, with a 95 % bootstrap interval."""
    ratios = np.array(numerator) / np.array(denominator)
    draws = np.random.default_rng(0).choice(ratios, size=(2000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return {"value": float(np.median(ratios)), "low": float(low), "high": float(high)}


def format_ratio(ratio: Mapping[str, float] | None, digits: int = 3) -> str:
    """Format a ratio with its interval for a table."""
    if ratio is None:
        return "-"
    value, low, high = (f"{ratio[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} ({low}-{high})"


def print_head(cells: Sequence[str]) -> None:
    """Print the first two lines of a table."""
    print(f"| {' | '.join(cells)} |\n|{'---|' * len(cells)}", flush=True)


def print_row(cells: Sequence[object]) -> None:
    """Print a line of a table."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def write_result(path: Path | None, watch: Stopwatch, content: Mapping[str, Any], device: str = "cpu") -> None:
    """Write figures with their provenance as JSON; None: write nothing."""
    if path is None:
        return
    provenance = watch.provenance(seed=0, device=device, recipe_sha256="")
    provenance = provenance.model_copy(update={"command": shlex.join(["python", *sys.argv])})
    document = {**content, "provenance": provenance.model_dump(mode="json")}
    write_atomic(path, json.dumps(document, indent=1) + "\n")


def make_check_parser(doc: str | None) -> argparse.ArgumentParser:
    """Make the parser of a check whose moments are drawn at random."""
    parser = make_parser(doc)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="save the figures in benchmarks/results")
    return parser


def finish_check(
    name: str, content: Mapping[str, Any], options: argparse.Namespace, *, failed: bool, details: str
) -> None:
    """Print the summary of a check, save its figures with --write, and exit with 1 if it failed.

    Args:
        name: of the file in benchmarks/results.
        content: the figures.
        options: of `make_check_parser`.
        failed: whether the check found a fault.
        details: key of the figures that the summary leaves out.
    """
    facts = {"torch": version("torch"), "python": platform.python_version(), "machine": platform.machine()}
    document = {**content, "seed": options.seed, **facts}
    print(json.dumps({key: value for key, value in document.items() if key != details}))
    if options.write:
        write_atomic(Path(__file__).parent / "results" / name, json.dumps(document, indent=1) + "\n")
    if failed:
        raise SystemExit(1)
