from __future__ import annotations

from pathlib import Path

import pytest
from run_support import small_recipe

from dskd_compress.catalogue.licenses import find_license, find_licenses
from dskd_compress.config import ModelSection
from dskd_compress.timm_import import import_timm
from dskd_export.errors import RecipeError


@pytest.mark.parametrize(
    ("section", "name", "source"),
    [
        ({"name": "resnet18"}, "apache-2.0", "timm, pretrained_cfg of resnet18.a1_in1k"),
        ({"name": "resnet18.tv_in1k"}, "bsd-3-clause", "timm, pretrained_cfg of resnet18.tv_in1k"),
        (
            {"name": "convnextv2_tiny"},
            "cc-by-nc-4.0",
            "timm, pretrained_cfg of convnextv2_tiny.fcmae_ft_in22k_in1k",
        ),
        ({"name": "resnet18", "pretrained": False}, None, "none needed: started from random weights"),
        (
            {"name": "resnet18", "checkpoint": Path("/home/me/secret.pth")},
            None,
            "a checkpoint of one's own, which names no licence",
        ),
        ({"name": "hf-hub:timm/resnet18"}, None, "see the model card of hf-hub:timm/resnet18"),
        ({"name": "no_such_model"}, None, "timm has no pretrained weights of no_such_model"),
    ],
)
def test_of_a_model(section: dict, name: str | None, source: str) -> None:
    facts = find_license(ModelSection.model_validate(section))
    assert (facts.name, facts.source) == (name, source)


def test_what_timm_does_not_know_is_unknown() -> None:
    timm = import_timm()
    names = timm.list_models(pretrained=True)
    unnamed = [name for name in names if timm.models.get_pretrained_cfg(name).license in (None, "", "unknown")]
    assert unnamed
    for name in unnamed:
        facts = find_license(ModelSection(name=name))
        assert facts.name is None
        assert facts.source.startswith("timm names none for ")


def test_of_a_recipe() -> None:
    unknown = find_licenses(small_recipe())
    assert unknown.weights.name is None
    assert unknown.weights.source == "export.license is not set in the recipe"
    said = find_licenses(small_recipe("export.license=Apache-2.0", "teacher.pretrained=true"))
    assert (said.weights.name, said.weights.source) == ("Apache-2.0", "export.license of the recipe")
    assert said.teacher.name == "apache-2.0"
    assert said.student_start.name is None


@pytest.mark.parametrize("path", ["/home/me/LICENSE", "~/LICENSE", "C:\\LICENSE"])
def test_a_path_is_no_licence(path: str) -> None:
    with pytest.raises(RecipeError, match=r"export\.license"):
        small_recipe(f"export.license={path}")
