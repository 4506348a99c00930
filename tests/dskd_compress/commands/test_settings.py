from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from readme_blocks import ROOT
from run_support import SMALL

from dskd_compress.cli import app, main
from dskd_compress.commands import settings
from dskd_compress.config import Recipe, TrainSection
from dskd_compress.names import AMP_NAMES, METHOD_NAMES, PRECISION_NAMES, STAGE_NAMES, TARGET_NAMES
from dskd_compress.recipe import recipe_from_mapping
from dskd_compress.recipe.sections import sections_of, tag_of
from dskd_compress.run_folder import STAGES
from dskd_export.documents.precision import Precision
from dskd_export.precision.targets import TARGETS

MOST_OPTIONS = 14
MOST_LINES = 60


def leaves(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield path, command
        return
    for name, child in below.items():
        yield from leaves(child, f"{path} {name}".strip())


COMMANDS = dict(leaves(typer.main.get_command(app)))


def shown(command: Any) -> list[str]:
    """The options of a help, its own `--help` aside."""
    return [
        parameter.opts[0]
        for parameter in command.params
        if parameter.param_type_name == "option" and not getattr(parameter, "hidden", False)
    ]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_help_fits_a_screen(name: str) -> None:
    assert len(shown(COMMANDS[name])) <= MOST_OPTIONS, shown(COMMANDS[name])


def test_a_command_function_fits_a_screen() -> None:
    seen = 0
    for path in (ROOT / "dskd_compress/commands").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno is not None
                assert node.end_lineno - node.lineno < MOST_LINES, f"{path.name}: {node.name}"
                seen += 1
    assert seen > 40


def test_the_names_in_help_texts_are_those_of_the_core() -> None:
    assert tuple(tag_of(section) for section in sections_of(Recipe, "method")) == METHOD_NAMES
    assert tuple(stage.name for stage in STAGES) == STAGE_NAMES
    assert set(TARGET_NAMES) | {"any"} >= set(TARGETS) >= set(TARGET_NAMES)
    assert get_args(Precision) == PRECISION_NAMES
    assert set(AMP_NAMES) == set(get_args(TrainSection.model_fields["precision"].annotation))


@pytest.mark.parametrize(
    ("command", "names"),
    [("run", STAGE_NAMES), ("run", TARGET_NAMES), ("distill", METHOD_NAMES), ("compare", METHOD_NAMES)],
)
def test_a_help_lists_all_of_them(
    command: str, names: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert main([command, "--help"]) == 0
    listed = [line for line in capsys.readouterr().out.splitlines() if names[0] in line and names[-1] in line]
    assert any(all(name in line for name in names) for line in listed)


# --- flags that stand for keys


@pytest.mark.parametrize(
    "command",
    ["run", "train", "distill", "tune", "export", "compare", "validate", "benchmark", "ab", "fleet"],
)
def test_every_setting_is_a_flag_of_its_command_and_a_key_of_the_recipe(command: str) -> None:
    flags = {option for parameter in COMMANDS[command].params for option in parameter.opts}
    found = [value for value in vars(settings).values() if isinstance(value, settings.Setting)]
    assert len(found) > 15
    taken = [setting for setting in found if setting.flag in flags]
    assert taken
    values = {int: 8, float: 0.5, str: "kd", bool: True, Path: Path("x")}
    own = {"data.source": "digits", "train.device": "cpu", "train.precision": "fp32", "tune.amp": "fp32"}
    own |= {"export.precisions": "fp16", "export.target": "ada", "export.exporter": "legacy"}
    lists = {"benchmark.runners": ["torch"], "benchmark.providers": ["cpu"], "benchmark.allow_cpu": ["Shape"]}
    lists |= {"benchmark.batches": ["1,4"], "benchmark.precisions": ["int8,fp16"]}
    for setting in taken:
        given = lists[setting.key] if setting.key in lists else own.get(setting.key) or values[setting.kind]
        (override, *more) = setting.overrides(given)
        assert override.startswith(f"{setting.key}=")
        assert override.flag.startswith(setting.flag)  # type: ignore[attr-defined]
        recipe_from_mapping(SMALL, [override, *more])


def test_flags_stand_before_set_which_wins() -> None:
    seen: list[list[str]] = []

    @settings.takes(settings.EPOCHS, settings.TEACHER_CHECKPOINT)
    def command(*, changes: list[str]) -> None:
        seen.append(changes)

    program = typer.Typer()
    program.command()(command)
    program(["--set", "train.epochs=3", "--teacher-checkpoint", "a b.pth", "--epochs", "2"], standalone_mode=False)
    program([], standalone_mode=False)
    assert seen == [
        ["train.epochs=2", 'teacher.checkpoint="a b.pth"', "teacher.train=null", "train.epochs=3"],
        [],
    ]
    assert settings.select_flags(seen[0]) == seen[0][:3]
    assert recipe_from_mapping(SMALL, seen[0]).train.epochs == 3


def test_the_teachers_training_has_the_same_flags() -> None:
    (epochs,) = settings.for_teacher(settings.EPOCHS)
    assert (epochs.key, epochs.flag) == ("teacher.train.epochs", "--epochs")
