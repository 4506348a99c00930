"""Pages are short, plain and complete; scripts are shell; what a page names exists; the site builds."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter
from readme_blocks import DOCS, PAGES, README, ROOT, blocks
from torch.distributed.run import get_args_parser
from typer.main import get_command

from dskd_compress.cli import app
from dskd_compress.config.recipe import Method
from dskd_compress.recipe import recipe_from_mapping

CONTRIBUTING = ROOT / "CONTRIBUTING.md"
DIALECT = re.compile(
    r"\b(is told|tells|goes on|gone on|beside|asked for|held (to|against)|of its own|by itself|to the last bit)\b",
    re.I,
)
TESTED_ELSEWHERE = {DOCS / "python-api.md"}
RECIPE = {"teacher": {"name": "resnet34", "pretrained": True}, "student": {"name": "resnet18"}}


def scripts() -> dict[str, str]:
    found = {f"distributed.md:{block.line}": block.text for block in blocks(DOCS / "distributed.md", "bash")}
    return {**found, "slurm.sbatch": (DOCS / "slurm.sbatch").read_text(encoding="utf-8")}


def command_lines(script: str) -> list[list[str]]:
    """The words of each command, `\\` at the end of a line joined, comments and shell variables taken out."""
    joined = re.sub(r"\\\n\s*", " ", script)
    lines = [line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [shlex.split(line, comments=True) for line in lines]


SCRIPTS = scripts()


def prose(path: Path) -> list[str]:
    """The sentences of a page: no fenced block, table, heading or comment; code and links are a word each."""
    text = re.sub(r"^```.*?^```$|<!--.*?-->", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    sentences = []
    for part in re.split(r"\n\s*\n|\n(?=\s*(?:- |\d+\. |#|\|))", text):
        if not part.lstrip().startswith(("|", "#")):
            words = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "CODE", " ".join(part.split())))
            sentences += re.split(r"(?<=[.!?])[)*]*\s+(?=[*(]*[A-Z0-9])", words)
    return sentences


def test_the_readme_is_short() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 180
    assert len(text.split()) <= 1800


@pytest.mark.parametrize("path", [*PAGES, CONTRIBUTING], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_sentence_is_longer_than_25_words(path: Path) -> None:
    sentences = prose(path)
    assert len(sentences) >= 4
    long = [text for text in sentences if sum(bool(re.search(r"\w", word)) for word in text.split()) > 25]
    assert long == []


@pytest.mark.parametrize("path", [*PAGES, CONTRIBUTING], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_words_are_those_of_the_field(path: Path) -> None:
    assert [text for text in prose(path) if DIALECT.search(text)] == []


def test_every_page_is_tested_and_on_the_site() -> None:
    pages = set(DOCS.glob("*.md"))
    assert pages <= {*PAGES, *TESTED_ELSEWHERE}
    nav = yaml.safe_dump(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    listed = set(re.findall(r"\S+\.md", nav))
    assert {path.relative_to(ROOT).as_posix() for path in {*PAGES, *pages, CONTRIBUTING}} <= listed


def first_column(section: str) -> set[str]:
    """The names in the first cells of a table of the README."""
    text = README.read_text(encoding="utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return {
        name
        for line in text.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(.+?)`", line.split("|")[1])
    }


def test_the_readme_lists_every_method_and_command() -> None:
    methods = TypeAdapter(Method).json_schema()["discriminator"]["mapping"]
    assert first_column("Methods") == set(methods)
    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    assert first_column("Commands") == commands


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) == 2
    assert sum("torchrun" in words for script in SCRIPTS.values() for words in command_lines(script)) == 4


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_shell_understands_it(name: str) -> None:
    done = subprocess.run(["bash", "-n"], input=SCRIPTS[name], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_flag_and_key_exists(name: str) -> None:
    seen = 0
    for words in command_lines(SCRIPTS[name]):
        if "torchrun" in words:
            words = words[words.index("torchrun") + 1 :]
            arguments = ["2" if word == "$SLURM_NNODES" else word for word in words]
            given = get_args_parser().parse_args(arguments)
            assert given.module
            assert given.training_script == "dskd_compress"
            ours = given.training_script_args
        elif "dskd-compress" in words:
            ours = words[words.index("dskd-compress") + 1 :]
        else:
            continue
        seen += 1
        command = get_command(app).commands[ours[0]]  # type: ignore[attr-defined]
        context = command.make_context(ours[0], list(ours[1:]))
        recipe_from_mapping(RECIPE, list(context.params.get("set_") or []))
    assert seen >= 2


def test_the_table_names_keys_that_exist() -> None:
    text = (DOCS / "distributed.md").read_text(encoding="utf-8")
    keys = set(re.findall(r"`train\.([a-z_]+)", text))
    assert {"batch_size", "grad_accumulation", "grad_checkpointing", "compile", "distributed_timeout_s"} <= keys
    from dskd_compress.config import TrainSection

    assert keys <= set(TrainSection.model_fields)


def test_what_a_contributor_is_pointed_to_exists() -> None:
    text = CONTRIBUTING.read_text(encoding="utf-8")
    named = {name for name in re.findall(r"`([\w./]+/[\w./]*)`", text) if not name.startswith("build/")}
    assert len(named) > 20
    places = (ROOT, ROOT / "dskd_compress", ROOT / "export" / "dskd_export")
    assert [name for name in sorted(named) if not any((place / name).exists() for place in places)] == []


def test_the_make_targets_that_are_named_exist() -> None:
    text = CONTRIBUTING.read_text(encoding="utf-8") + README.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`)make (\w+)", text, re.MULTILINE))
    assert {"demo", "test", "check", "docs"} <= named
    assert named <= set(re.findall(r"^(\w+):", makefile, re.MULTILINE))


def test_the_citation_names_the_paper_and_says_whose_work_this_is() -> None:
    from dskd_compress import __version__

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == __version__
    assert "independent implementation" in " ".join(citation["message"].split())
    (paper,) = citation["references"]
    assert paper["identifiers"][0]["value"] == "arXiv:2602.02107"
    assert len(paper["authors"]) == 9


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    page = (tmp_path / "reference" / "dskd_export.validation.html").read_text(encoding="utf-8")
    assert "dskd_export.validation.parity.compare_outputs" in page
    assert (tmp_path / "export" / "index.html").is_file()
    assert (tmp_path / "docs" / "slurm.sbatch").is_file()
