"""A hook of mkdocs: the site's pages are the repository's own files, and a reference made from the docstrings.

A page lies on the site where its file lies here, so a relative link is right on both. What the pages in
`nav` link to comes along: Markdown as a page, anything else as it is. A notebook is a page of its cells.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"dskd_compress": ROOT / "dskd_compress", "dskd_export": ROOT / "export" / "dskd_export"}
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the reference to the navigation."""
    config.nav.append({"Reference": [{package: _pages_of(package)} for package in PACKAGES]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the repository's files and the reference."""
    pages = list(_paths(config.nav))
    notebooks = {path: (ROOT / path).with_suffix(".ipynb") for path in pages}
    notebooks = {path: file for path, file in notebooks.items() if file.is_file()}
    for path in sorted(_linked(path for path in pages if path not in notebooks)):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    for path, file in notebooks.items():
        files.append(File.generated(config, path, content=_page_from_notebook(file)))
    for package in PACKAGES:
        for page in _pages_of(package):
            files.append(File.generated(config, page, content=_reference(Path(page).stem)))
    return files


def _paths(nav: object) -> Iterator[str]:
    """The files that the navigation names."""
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        for value in nav.values():
            yield from _paths(value)
    elif isinstance(nav, list):
        for value in nav:
            yield from _paths(value)


def _linked(paths: Iterator[str]) -> set[str]:
    """Files of the repository, and what they link to, and so on."""
    waiting, found = [path for path in paths if not path.startswith("reference/")], set[str]()
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        if not path.endswith(".md"):
            continue
        for target in _LINK.findall((ROOT / path).read_text(encoding="utf-8")):
            file = (ROOT / path).parent / target
            if "://" not in target and file.is_file():  # mkdocs reports missing files
                waiting.append(str(file.resolve().relative_to(ROOT)))
    return found


def _page_from_notebook(file: Path) -> str:
    """A page of the navigation that a notebook of its name stands for: its cells in order, code fenced."""
    parts = []
    for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    return "\n\n".join(parts) + "\n"


def _pages_of(package: str) -> list[str]:
    """One page for every module, or package, right within a package."""
    children = sorted(path for path in PACKAGES[package].iterdir() if path.stem[0] != "_" and _is_python(path))
    return [f"reference/{package}.{path.stem}.md" for path in children]


def _is_python(path: Path) -> bool:
    return path.suffix == ".py" or (path / "__init__.py").is_file()


def _reference(name: str) -> str:
    """Directives of mkdocstrings for a module and all modules within it."""
    package, _, rest = name.partition(".")
    path = PACKAGES[package] / rest
    modules = [name]
    for file in sorted(path.rglob("*.py")) if path.is_dir() else []:
        inner = file.relative_to(PACKAGES[package]).with_suffix("")
        if not any(part.startswith("_") or part in ("vendor", "templates") for part in inner.parts):
            modules.append(".".join([package, *inner.parts]))
    return f"# {name}\n\n" + "\n\n".join(f"::: {module}" for module in modules) + "\n"
