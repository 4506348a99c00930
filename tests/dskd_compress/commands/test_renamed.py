from __future__ import annotations

import pytest
import typer

from dskd_compress.cli import app, main
from dskd_compress.commands.renamed import RENAMED, rename_flags


@pytest.mark.parametrize(
    ("given", "expected", "warnings"),
    [
        (["distill", "--precision", "bf16"], ["distill", "--amp", "bf16"], 1),
        (["train", "x.yaml", "--precision=bf16"], ["train", "x.yaml", "--amp=bf16"], 1),
        (["deploy", "--target", "cpp", "--device=x"], ["deploy", "--artifact", "cpp", "--platform=x"], 2),
        (["export", "r", "--precision", "fp16"], ["export", "r", "--precision", "fp16"], 0),
        (["distill", "--amp", "fp16"], ["distill", "--amp", "fp16"], 0),
        ([], [], 0),
    ],
)
def test_an_old_name_becomes_the_new_one(
    given: list[str], expected: list[str], warnings: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rename_flags(given) == expected
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("warning: ") == warnings


def test_new_names_are_flags_of_their_commands_and_old_ones_are_not() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for command, flags in RENAMED.items():
        known = {option for parameter in commands[command].params for option in parameter.opts}
        assert {new for new, _ in flags.values()} <= known
        assert known.isdisjoint(flags)


def test_a_precision_of_models_is_no_number_type_of_training(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", "--precision", "int8", "digits/resnet18-to-mobilenetv3_small_050"]) == 2
    err = capsys.readouterr().err
    assert "--precision is now --amp" in err
    assert "dskd-compress export RUN --precision" in err
    assert "error: --amp int8: train.precision" in err
