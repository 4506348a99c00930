from __future__ import annotations

import json
import re

import pytest

from dskd_compress.cli import main
from dskd_compress.timm_import import import_timm

pytestmark = pytest.mark.usefixtures("no_document_yet")


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["test_re"], "*test_re*"),
        (["test_*"], "test_*"),
        ([], ""),
    ],
)
def test_list(arguments: list[str], wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    expected = import_timm().list_models(wanted)
    assert main(["models", "list", *arguments]) == 0
    assert capsys.readouterr().out.split() == expected
    assert main(["models", "list", *arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"models": expected}
    assert err.split() == expected


def test_list_pretrained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "resnet18", "--pretrained", "--json"]) == 0
    names = json.loads(capsys.readouterr().out)["models"]
    assert "resnet18.a1_in1k" in names
    assert "resnet18" not in names


def test_list_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "resnext_of_nobody"]) == 2
    assert "No model matches 'resnext_of_nobody'" in capsys.readouterr().err


def test_inspect(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "inspect", "test_resnet", "--input-size", "64"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    parameters = sum(p.numel() for p in import_timm().create_model("test_resnet").parameters())
    for expected in ("test_resnet", f"{parameters:,}", "3x64x64", "vector tap", "96 channels, grid 2x2, NCHW"):
        assert expected in text, expected


def test_inspect_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "inspect", "test_vit", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["model"]["input_size"] == [3, 160, 160]
    assert found["taps"]["map"] == {"kind": "map", "channels": 64, "grid": [10, 10], "layout": "tokens"}
    assert set(found["heads"]) == {"vector", "map"}
    assert "vector tap" in err


def test_inspect_of_a_model_without_a_map(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "inspect", "crossvit_tiny_240"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "map tap │ none: crossvit_tiny_240 has no spatial map before its head." in text


def test_suggest_for_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "suggest", "--teacher", "resnt18"]) == 3
    assert "hint: Did you mean resnet18" in capsys.readouterr().err


def test_inspect_of_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "inspect", "resnet19", "--json"]) == 3
    out, err = capsys.readouterr()
    assert "has no model 'resnet19'" in json.loads(out)["error"]["message"]
    assert "hint: Did you mean" in err


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test_vit", ("VisionTransformer (vit)", "3x160x160, fixed", "as a teacher │ yes: vector")),
        (
            "test_resnet",
            ("ResNet (cnn)", "any size", "mean 0.5 0.5 0.5", "yes: vector and map", "as a student │ yes"),
        ),
        ("vit_small_patch14_reg4_dinov2", ("no classifier", "teacher.fit: probe")),
    ],
)
def test_inspect_says_what_a_model_can_be(
    name: str, expected: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "inspect", name, "--input-size", "160" if "test" in name else "140"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in expected:
        assert part in text, part


def test_suggest(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["models", "suggest", "--teacher", "resnet18", "--max-parameters", "2", "--max-macs", "100"]
    assert main([*command, "--limit", "2", "--kind", "cnn", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["max_parameters"], found["max_macs"]) == (2_000_000, 100_000_000)
    assert len(found["students"]) == 2
    assert all(student["name"] in err for student in found["students"])
    assert found["left_out"]["resnet50"].startswith("25,557,032 parameters")
    assert "resnet50" not in err  # said on request
    assert main(["models", "suggest", "--teacher", "resnet18", "--max-parameters", "0.001", "--limit", "2"]) == 0
    assert "Nothing fits" in (shown := capsys.readouterr().out)
    assert re.search(r"\+[\d,]+% parameters", shown)
