"""Names that people give for a model and timm has not: each gets a hint whose flags are right."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path

import pytest
import torch
from run_support import Finished
from safetensors.torch import save_file

from dskd_compress.cli import main
from dskd_compress.model_names import check_name, find_close
from dskd_compress.timm_import import import_timm
from dskd_export.errors import ModelError


def refused(name: str, role: str = "teacher") -> str:
    with pytest.raises(ModelError) as caught:
        check_name(name, role)  # type: ignore[arg-type]
    assert name in caught.value.message
    assert caught.value.hint is not None
    return caught.value.hint


def values_of(hint: str) -> dict[str, str]:
    words = shlex.split(hint.removeprefix("Use ").removesuffix("."))
    return {flag: value.rstrip(",.") for flag, value in itertools.pairwise(words) if flag.startswith("--")}


@pytest.mark.parametrize(
    "name", ["resnet50", "resnet50.tv_in1k", "hf-hub:a/b", "hf_hub:a/b", "local-dir:x", "cifar_resnet20"]
)
def test_names_that_timm_takes(name: str) -> None:
    check_name(name, "teacher")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("torchvision/resnet18", "resnet18.tv_in1k"),
        ("microsoft/resnet-50", "resnet50"),
        ("google/vit-base-patch16-224", "vit_base_patch16_224"),
        ("timm/resnet18.a1_in1k", "resnet18.a1_in1k"),
        ("https://huggingface.co/timm/resnet18.a1_in1k", "resnet18.a1_in1k"),
        ("huggingface.co/microsoft/resnet-50/tree/main", "resnet50"),
    ],
)
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_names_of_others_have_one_of_timm(name: str, meant: str, role: str) -> None:
    hint = refused(name, role)
    assert shlex.split(hint)[1:3] == [f"--{role}", meant] or f"--{role} {meant}." in hint
    check_name(meant, "teacher")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("resnet_50", ["resnet50"]),
        ("ResNet-50", ["resnet50"]),
        ("efficientnet-b0", ["efficientnet_b0"]),
        ("vit_b_16", ["vit_base_patch16_224"]),
        ("swin_t", ["swin_tiny_patch4_window7_224"]),
        ("mobilenet_v2", ["mobilenetv2_100"]),
        ("resnet19", ["resnet18"]),
    ],
)
def test_other_spellings(name: str, meant: list[str]) -> None:
    found = find_close(name)
    assert found[: len(meant)] == meant
    assert all(map(import_timm().is_model, found))
    assert all(one in refused(name) for one in found)


def test_a_wrong_tag_lists_those_there_are() -> None:
    close = refused("resnet18.tv").removeprefix("Did you mean ").removesuffix("?").split(", ")
    assert close == ["resnet18.tv_in1k"]
    for one in close:
        check_name(one, "teacher")


@pytest.mark.parametrize("name", ["", " ", "/", "qqqq", "x" * 5000, "a\0b", "hf-hub:", "my/own", "../up"])
def test_names_of_nothing(name: str) -> None:
    assert "--" in refused(name) or "models list" in refused(name)


@pytest.mark.parametrize(
    ("file", "meant"),
    [
        ("resnet50-0676ba61.pth", "resnet50"),
        ("mobilenetv2_100.same_pad_in1k.safetensors", "mobilenetv2_100"),
        ("resnet18_bolts_best.ckpt", "resnet18"),
        ("best.pt", "NAME"),
        ("my models/resnet18.pth", "resnet18"),
    ],
)
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_file_as_a_name(file: str, meant: str, role: str) -> None:
    assert values_of(refused(file, role)) == {f"--{role}": meant, f"--{role}-checkpoint": file}


def test_the_metadata_of_a_file_names_its_model(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"pretrained_cfg": '{"architecture": "resnet34"}'})
    assert values_of(refused(str(path)))["--teacher"] == "resnet34"
    path.write_bytes(b"no safetensors")
    assert values_of(refused(str(path)))["--teacher"] == "NAME"


def test_the_hint_works_when_pasted(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    weights = str(finished.folder / "teacher.safetensors")
    plan = ["distill", "--student", "test_efficientnet", "--data", "digits", "--input-size", "32", "--dry-run"]
    for given in (weights, str(finished.folder.path)):
        assert main([*plan, "--teacher", given]) == ModelError.exit_code
        hint = capsys.readouterr().err.split("hint: Use ")[1]
        if given == weights:
            assert main([*plan, *shlex.split(hint)]) == 0
        assert "--teacher-checkpoint" in hint
