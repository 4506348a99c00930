"""Advice that can be followed: every option and every key that a message names is there.

The texts are read out of the sources, so that a message which no test provokes counts as well.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

import dskd_compress
import dskd_export
from dskd_compress.cli import app
from dskd_compress.config import Recipe
from dskd_compress.recipe.sections import field_of, keys_of, sections_of

ROOTS = [Path(str(package.__file__)).parent for package in (dskd_compress, dskd_export)]
HOLE = "\x00"  # what an f-string fills in


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every string of a source but docstrings and the help of options: line and text."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                skipped.add(id(first.value))
        if isinstance(node, ast.JoinedStr):
            skipped.update(id(part) for part in node.values)
            parts = [part.value if isinstance(part, ast.Constant) else HOLE for part in node.values]
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.lineno, node.value


@cache
def all_texts() -> list[tuple[str, str]]:
    return [
        (f"{root.name}/{path.relative_to(root)}:{line}", text)
        for root in ROOTS
        for path in sorted(root.rglob("*.py"))
        for line, text in texts(ast.parse(path.read_text(encoding="utf-8")))
    ]


def options_of(command: Any) -> set[str]:
    """Every option of a command, and of the commands below it."""
    own = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return own.union({"--help"}, *(options_of(below) for below in getattr(command, "commands", {}).values()))


COMMANDS = {name: options_of(command) for name, command in typer.main.get_command(app).commands.items()}  # type: ignore[attr-defined]

# Options of other programs that a hint names.
FOREIGN = {
    "--shm-size",
    "--pids-limit",
    "--nproc-per-node",
    "--upgrade",
    "--force-reinstall",
    "--gpus",
    "--runtime",
    "--debug",
}
FOREIGN |= {"--system-site-packages", "--version"}

# Whose messages a module's are: the option has to be there on one of these, or, of what trains, on all.
PRINTED_BY: dict[str, set[str]] = {
    "dskd_export/report/next_steps": {"run"},
    "dskd_compress/comparison": {"compare"},
    "dskd_compress/stages/compare": {"compare"},
    "dskd_compress/stages/export": {"export"},
    "dskd_compress/stages/hub": {"push-to-hub"},
    "dskd_compress/stages/pipeline": {"run"},
    "dskd_compress/stages/report": {"report"},
    "dskd_compress/stages/suggest": {"models"},
    "dskd_compress/stages/tune": {"tune"},
    "dskd_compress/stages/validate": {"validate"},
    "dskd_export/bundle/": {"bundle"},
    "dskd_export/benchmark/": {"benchmark", "ab", "build"},
    "dskd_export/fleet/": {"fleet"},
    "dskd_export/deployment/": {"deploy", "build"},
    "dskd_export/engine/": {"build", "export"},
    "dskd_export/onnx_from_torch/": {"export"},
    "dskd_export/report/": {"report", "benchmark"},
    "dskd_export/runtime/": {"validate", "benchmark", "build"},
}
TRAINS = (
    "dskd_compress/models",
    "dskd_compress/stages/setup",
    "dskd_compress/stages/train",
    "dskd_compress/teachers/load",
    "dskd_compress/training/",
)
OPTION = re.compile(r"(?<![\w(-])--[a-z][a-zA-Z0-9-]*[a-zA-Z0-9]")
NAMED_COMMAND = re.compile(r"(?:^|[:`'(\x00] ?|\s\s+|#  )dskd-compress ([a-z-]+)([^;:`\n)]*)")


def advice() -> Iterator[tuple[str, str]]:
    """Texts in words that name an option."""
    for where, text in all_texts():
        if not text.startswith("--") and OPTION.search(text) and "var(--" not in text:
            yield where, text


def test_there_is_advice() -> None:
    assert sum(1 for _ in advice()) > 60
    assert {"train", "distill", "bundle"} <= COMMANDS.keys()


def test_options_that_follow_a_command_are_options_of_it() -> None:
    for where, text in advice():
        for name, rest in NAMED_COMMAND.findall(text):
            assert name in COMMANDS, f"{where}: there is no command {name}"
            for option in OPTION.findall(rest):
                assert option in COMMANDS[name], f"{where}: {name} has no {option}: {text}"


def test_options_on_their_own_are_options_of_the_command_that_names_them() -> None:
    anywhere = set().union(*COMMANDS.values())
    for where, text in advice():
        bare = {option for option in OPTION.findall(NAMED_COMMAND.sub("", text)) if option not in FOREIGN}
        assert bare <= anywhere, f"{where}: no command has {bare - anywhere}"
        owners = next((owners for prefix, owners in PRINTED_BY.items() if where.startswith(prefix)), set())
        if (own := re.match(r"dskd_compress/commands/(\w+)\.py", where)) and own[1].replace("_", "-") in COMMANDS:
            owners = {own[1].replace("_", "-")}
        for option in bare:
            assert not owners or any(option in COMMANDS[name] for name in owners), f"{where}: {option}: {text}"
            if where.startswith(TRAINS):
                for name in ("train", "distill", "run"):
                    assert option in COMMANDS[name], f"{where}: {name} has no {option}: {text}"


# --- keys of the recipe

SECTIONS = [key for key in keys_of(Recipe) if key not in ("name", "description", "seed")]
KEY = re.compile(rf"(?<![\w./-])(?:{'|'.join(SECTIONS)})(?:\.[a-z_0-9]+)+(?![\w(/])")
# Files, not keys; and what a device calls its settings.
FILES = re.compile(r"\.(json|jsonl|safetensors|html|md|csv|npz|yaml|py|sh|partial|onnx|log)\b|\.jsonl")


def exists(key: str) -> bool:
    """Whether a dotted key is one of the recipe's; below a mapping of free keys anything is."""
    models: list[Any] = [Recipe]
    for part in key.split("."):
        if not models:
            return False
        known = [model for model in models if field_of(model, part) is not None]
        if not known:
            return False
        below = [section for model in known for section in sections_of(model, part)]
        if not below and any("dict" in str(field_of(model, part)) for model in known):
            return True
        models = below
    return True


def test_keys_that_a_text_names_are_keys_of_the_recipe() -> None:
    seen = 0
    for where, text in all_texts():
        for key in KEY.findall(text):
            if FILES.search(key):
                continue
            seen += 1
            assert exists(key), f"{where}: the recipe has no {key}: {text[:200]!r}"
    assert seen > 80
    assert exists("teacher.kwargs.img_size")
    assert exists("method.lsh_weight")
    assert not exists("teacher.no_such_key")


@pytest.mark.parametrize("text", ["Use --no-such-option", "Use: dskd-compress report RUN --teacher-checkpoint x"])
def test_the_scan_would_see_it(text: str) -> None:
    named = [option for name, rest in NAMED_COMMAND.findall(text) for option in OPTION.findall(rest)]
    bare = set(OPTION.findall(NAMED_COMMAND.sub("", text)))
    wrong = [option for option in named if option not in COMMANDS["report"]] + [
        option for option in bare if not any(option in options for options in COMMANDS.values())
    ]
    assert wrong
