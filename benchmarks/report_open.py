"""Time to open a report in Chromium, from the request of the file to its last chart.

    PYTHONPATH=tests/helpers python benchmarks/report_open.py --out benchmarks/results/report_open.json

Two reports of typed documents: one run, and twelve folders (three precisions, two devices, four methods). Each is
opened --rounds times, in the light theme, at 1280 px, in one headless Chromium.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from measurement import make_parser, print_head, print_row, write_result
from report_matrix import make_matrix

from dskd_export.provenance import Stopwatch
from dskd_export.report import build_comparison, build_report

TESTS = Path(__file__).resolve().parents[1] / "tests"


def load(name: str, path: Path) -> Any:
    """Load a module of the tests that is in no package."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Open both, print a table, write the file."""
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    watch = Stopwatch()
    browser = load("report_browser", TESTS / "dskd_export/report/browser/conftest.py").Browser
    writer = load("report_writer", TESTS / "dskd_export/report/conftest.py").RunWriter
    program = shutil.which("chromium")
    assert program is not None, "apt-get install chromium"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pages = {
            "one run": build_report(writer(folder / "one", precisions=True).write()).html,
            "12 folders": build_comparison(
                make_matrix(lambda run: writer(run, precisions=True).write(), folder / "matrix")
            ).html,
        }
        tab = browser(program, folder / "profile")
        rows = []
        for title, html in pages.items():
            path = folder / f"{title}.html"
            path.write_text(html, encoding="utf-8")
            seconds = []
            for _ in range(given.rounds):
                began = time.perf_counter()
                tab.open(path.as_uri())
                seconds.append(time.perf_counter() - began)
            low, high = np.quantile(seconds, [0.0, 1.0])
            rows.append(
                {
                    "report": title,
                    "bytes": path.stat().st_size,
                    "median_s": median(seconds),
                    "least_s": float(low),
                    "most_s": float(high),
                }
            )
        tab.close()
    print_head(["report", "MB", "opened in, s (median)", "least", "most"])
    for row in rows:
        times = [f"{row[key]:.2f}" for key in ("median_s", "least_s", "most_s")]
        print_row([row["report"], f"{row['bytes'] / 1e6:.2f}", *times])
    write_result(given.out, watch, {"rounds": given.rounds, "rows": rows})


if __name__ == "__main__":
    main()
