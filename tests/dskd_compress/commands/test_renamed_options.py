from __future__ import annotations

from typing import Any

import pytest
import typer

from dskd_compress.cli import app, main
from dskd_compress.commands.renamed_options import RenamedOptions

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
RENAMED = {name: command for name, command in COMMANDS.items() if isinstance(command, RenamedOptions)}


@pytest.mark.parametrize(
    ("command", "given", "parameter", "value"),
    [
        ("distill", ["--precision", "bf16"], "amp", "bf16"),
        ("train", ["x.yaml", "--precision=bf16"], "amp", "bf16"),
        ("deploy", ["b", "-o", "x", "--target", "cpp"], "artifact", "cpp"),
        ("deploy", ["b", "-o", "x", "--device=jetson"], "platform", "jetson"),
    ],
)
def test_an_old_name_becomes_the_new_one(
    command: str, given: list[str], parameter: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    context = COMMANDS[command].make_context(command, given)
    assert str(getattr(context.params[parameter], "value", context.params[parameter])) == value
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert f"--{parameter}" in err


def test_a_new_name_is_no_old_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert COMMANDS["distill"].make_context("distill", ["--amp", "fp16"]).params["amp"] == "fp16"
    assert COMMANDS["export"].make_context("export", ["r", "--precision", "fp16"]).params["precision"] == "fp16"
    assert capsys.readouterr() == ("", "")


def test_new_names_are_flags_of_their_commands_and_old_ones_are_not() -> None:
    assert {"train", "distill", "deploy"} <= set(RENAMED)
    for command in RENAMED.values():
        known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
        assert set(command.renamed.values()) <= known
        assert known.isdisjoint(command.renamed)


def test_a_precision_of_models_is_no_number_type_of_training(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", "--precision", "int8", "digits/resnet18-to-mobilenetv3_small_050"]) == 2
    err = capsys.readouterr().err
    assert "error: --amp int8: train.precision" in err
