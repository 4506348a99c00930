from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer
from readme_blocks import ROOT
from run_support import SMALL

from dskd_compress.cli import app
from dskd_compress.commands.options import as_overrides, flag_of, say_chosen, say_next, split_commas
from dskd_compress.console import Output
from dskd_compress.recipe import recipe_from_mapping

# --- flags as overrides


def test_only_flags_that_were_given() -> None:
    assert as_overrides(data__source="digits", train__lr=None, seed=0) == ['data.source="digits"', "seed=0"]


@pytest.mark.parametrize(
    ("flags", "key", "expected"),
    [
        ({"train__lr": 1e-5}, ("train", "lr"), 1e-5),
        ({"train__lr": 3}, ("train", "lr"), 3.0),
        ({"train__epochs": 7}, ("train", "epochs"), 7),
        ({"data__source": "a = b: [c] # d"}, ("data", "source"), "a = b: [c] # d"),
        ({"data__source": "null"}, ("data", "source"), "null"),
        ({"data__source": "1e3"}, ("data", "source"), "1e3"),
        ({"data__source": 'it\'s "β"\\'}, ("data", "source"), 'it\'s "β"\\'),
        ({"teacher__checkpoint": Path("my weights.pth")}, ("teacher", "checkpoint"), Path("my weights.pth")),
        ({"student__name": "hf-hub:timm/resnet18.a1_in1k"}, ("student", "name"), "hf-hub:timm/resnet18.a1_in1k"),
    ],
)
def test_a_flag_arrives_as_it_was_typed(flags: dict[str, object], key: tuple[str, str], expected: object) -> None:
    recipe = recipe_from_mapping(SMALL, as_overrides(**flags))
    found = getattr(getattr(recipe, key[0]), key[1])
    assert found == expected
    assert type(found) is type(expected) or isinstance(found, Path)


# --- flags and keys


def test_every_flag_that_stands_for_a_key_is_one_of_its_command() -> None:
    program: Any = typer.main.get_command(app)
    named = 0
    for name, command in program.commands.items():
        sources = [name.replace("-", "_"), *(["benchmark_options"] if name == "benchmark" else [])]
        folder = ROOT / "dskd_compress" / "commands"
        text = "".join((folder / f"{source}.py").read_text(encoding="utf-8") for source in sources)
        flags = {option for parameter in command.params for option in parameter.opts}
        for key in re.findall(r"\b((?:[a-z]+__)+[a-z0-9_]+)=", text):
            assert flag_of(key.replace("__", ".")) in flags, (name, key)
            named += 1
    assert named > 8  # the others are settings, see test_settings.py


def test_an_earlier_choice_is_said_with_the_way_back(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(json_output=False)
    key = "validate.precisions"
    say_chosen(None, key, [], output)
    say_chosen(["int8"], key, [f'{key}=["int8"]'], output)
    assert capsys.readouterr().out == ""
    say_chosen(["int8"], key, ["validate.images=9"], output)
    assert "--set validate.precisions=null" in " ".join(capsys.readouterr().out.split())


def test_the_next_command_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    say_next("export", Path("my runs/[bold]r18"), Output(json_output=False))
    assert capsys.readouterr().out == "Next: dskd-compress export 'my runs/[bold]r18'\n"


def test_a_list_is_given_with_commas_or_by_repeating() -> None:
    assert split_commas(["fp32,int8", " fp16 "]) == ["fp32", "int8", "fp16"]
    assert split_commas(None) is split_commas([]) is None
