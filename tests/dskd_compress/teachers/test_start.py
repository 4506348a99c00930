from __future__ import annotations

from pathlib import Path

import pytest
from run_support import QUIET, small_recipe
from safetensors.torch import save_file

from dskd_compress.config import Recipe
from dskd_compress.data import Preprocessing
from dskd_compress.stages.setup import open_checked_data
from dskd_compress.teachers.start import with_probe_where_needed
from dskd_compress.timm_import import import_timm
from dskd_compress.weights import WeightsInfo, save_weights

FORMAT = {
    "input_size": (3, 32, 32),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "crop_mode": "center",
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of four classes and of ten, of none, with a prefix, and with the names of their classes."""
    folder = tmp_path_factory.mktemp("weights")
    ten = import_timm().create_model("test_resnet", num_classes=10).state_dict()
    save_file(ten, folder / "ten.safetensors")
    state = import_timm().create_model("test_resnet", num_classes=4).state_dict()
    save_file(state, folder / "four.safetensors")
    save_file({name: value for name, value in state.items() if "fc." not in name}, folder / "none.safetensors")
    save_file({f"net.{name}": value for name, value in state.items()}, folder / "net.safetensors")
    section = small_recipe().teacher
    names = ("a", "b", "c", "d")
    save_weights(folder / "ours.safetensors", state, WeightsInfo.of(section, names, Preprocessing(**FORMAT)))
    return folder


def started(*overrides: str) -> tuple[Recipe, Recipe]:
    recipe = small_recipe("teacher.train=null", *overrides)
    return recipe, with_probe_where_needed(recipe, open_checked_data(recipe), QUIET)


@pytest.mark.parametrize("name", ["four", "ours", "net"])
def test_another_number_of_classes_gets_a_probe(
    name: str, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = f"teacher.checkpoint={weights / name}.safetensors"
    _, found = started(checkpoint)
    assert found == small_recipe("teacher.train=null", checkpoint, "teacher.probe=true")
    assert "4 classes in its weights, 10 classes in the data" in " ".join(capsys.readouterr().err.split())


def test_so_does_an_encoder_without_a_classifier(weights: Path) -> None:
    _, found = started(f"teacher.checkpoint={weights / 'none.safetensors'}")
    assert found.teacher.probe is not None
    assert found.teacher.kwargs == {"num_classes": 0}


def test_so_do_the_pretrained_weights_of_timm() -> None:
    recipe = small_recipe("teacher.train=null", "teacher.pretrained=true")
    assert with_probe_where_needed(recipe, open_checked_data(recipe), QUIET).teacher.probe is not None


def test_what_the_recipe_decides_stays(weights: Path) -> None:
    four = f"teacher.checkpoint={weights / 'four.safetensors'}"
    for changes in (
        ("teacher.class_map=by_name", four),
        ("teacher.probe={l2: 0.5}", four),
        ("teacher.train={epochs: 2}", four),
        (f"teacher.checkpoint={weights / 'ten.safetensors'}",),
        (f"teacher.checkpoint={weights / 'gone.safetensors'}",),
        ("teacher.pretrained=true", "teacher.kwargs={num_classes: 10}"),
    ):
        recipe, found = started(*changes)
        assert found == recipe, changes
