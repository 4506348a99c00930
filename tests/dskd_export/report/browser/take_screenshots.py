"""Take the report's screenshots: ship, not shown, do not ship, and three runs on two devices.

Run by hand: `python tests/dskd_export/report/browser/take_screenshots.py FOLDER`. The numbers are made up. The
verdicts come from the real rules.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "helpers"))

from dskd_export.report import build_comparison, build_report  # noqa: E402

WIDTHS = (1280, 800, 360)
SCHEMES = ("light", "dark")

SITUATIONS: dict[str, dict[str, Any]] = {
    "ship": {},
    "not-shown": {
        "images": 150,
        "student_right": 144,
        "teacher_right": 144,
        "commonest": 15,
        "student_drop": 0.01,
    },
    "do-not-ship": {
        "images": 150,
        "student_right": 94,
        "teacher_right": 144,
        "student_drop": 0.02,
        "classes": ["bolt", "nut", "screw", "washer"],
        "stable": False,
    },
}


def load(name: str, path: Path) -> ModuleType:
    """A module of the tests, which are no package."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def make_pages(folder: Path) -> dict[str, Path]:
    """Write the pages; name -> file."""
    writer = load("report_conftest", HERE.parent / "conftest.py")
    make_matrix: Callable[..., list[Path]] = load(
        "report_matrix", HERE.parents[2] / "helpers/report_matrix.py"
    ).make_matrix
    pages = {}
    for name, settings in SITUATIONS.items():
        run = writer.RunWriter(folder / name, precisions=True, **settings).write()
        pages[name] = folder / f"{name}.html"
        pages[name].write_text(build_report(run).html, encoding="utf-8")
    folders = make_matrix(lambda run: writer.RunWriter(run, precisions=True).write(), folder / "matrix")
    three = [one for one in folders if "results" in one.parts and one.parent.name in ("dskd", "dist", "kd")]
    pages["three-runs"] = folder / "three-runs.html"
    pages["three-runs"].write_text(build_comparison(three).html, encoding="utf-8")
    return pages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="pages whose name has this in it")
    parser.add_argument("--width", type=int, action="append", help="default: all three")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        parser.error("no Chromium on the PATH")
    with tempfile.TemporaryDirectory() as made:
        pages = make_pages(Path(made))
        browser = load("browser_conftest", HERE / "conftest.py").Browser(program, Path(made) / "profile")
        for name, page in pages.items():
            if arguments.only not in name:
                continue
            for width in arguments.width or WIDTHS:
                for scheme in SCHEMES:
                    browser.open(page.as_uri(), width, scheme)
                    for part, whole in (("first", False), ("whole", True)):
                        browser.screenshot(arguments.folder / f"{name}-{width}-{scheme}-{part}.png", whole)
                    scrolls = browser.evaluate("document.documentElement.scrollWidth > window.innerWidth")
                    line = browser.evaluate("document.querySelector('.line').getBoundingClientRect().bottom")
                    print(name, width, scheme, f"sentence ends at {line:.0f} px", "SCROLLS" if scrolls else "")
        browser.close()


if __name__ == "__main__":
    main()
