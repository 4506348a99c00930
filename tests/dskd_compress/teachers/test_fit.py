"""How a teacher gets the classes of the data: as the recipe says, else by its own; the same in every command."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
from run_support import QUIET, small_recipe
from safetensors.torch import save_file

from dskd_compress.cli import main
from dskd_compress.config import Recipe, TeacherProbeSection, TrainSection
from dskd_compress.data import Preprocessing
from dskd_compress.recipe import dump_recipe
from dskd_compress.run_folder import DISTILL, RunFolder
from dskd_compress.stages.plan import make_plan
from dskd_compress.stages.setup import open_checked_data
from dskd_compress.teachers.fit import decide_fit
from dskd_compress.timm_import import import_timm
from dskd_compress.weights import WeightsInfo, save_weights
from dskd_export.documents.base import read_document
from dskd_export.documents.training import TrainingDocument

FORMAT = Preprocessing((3, 32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear", 1.0, "center")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of four classes and of ten, of none, of another model, with a prefix, and with named classes."""
    folder = tmp_path_factory.mktemp("weights")
    ten = import_timm().create_model("test_resnet", num_classes=10).state_dict()
    save_file(ten, folder / "ten.safetensors")
    state = import_timm().create_model("test_resnet", num_classes=4).state_dict()
    save_file(state, folder / "four.safetensors")
    save_file({name: value for name, value in state.items() if "fc." not in name}, folder / "none.safetensors")
    save_file({f"net.{name}": value for name, value in state.items()}, folder / "net.safetensors")
    vit = import_timm().create_model("test_vit", num_classes=0).state_dict()
    save_file(vit, folder / "strange.safetensors")
    section = small_recipe().teacher
    for name, classes in (("ours4", "abcd"), ("ours10", "0123456789"), ("other10", "abcdefghij")):
        info = WeightsInfo.of(section, tuple(classes), FORMAT)
        save_weights(folder / f"{name}.safetensors", state if len(classes) == 4 else ten, info)
    return folder


def recipe_with(weights: Path, name: str | None, *overrides: str) -> Recipe:
    start = "teacher.pretrained=true" if name is None else f"teacher.checkpoint={weights / name}.safetensors"
    return small_recipe("teacher.train=null", start, *overrides)


@pytest.mark.parametrize(
    ("name", "overrides", "fit", "printed"),
    [
        ("four", (), "probe", "4 classes in its weights, 10 classes in the data"),
        ("net", (), "probe", "4 classes"),
        ("ours4", (), "probe", "4 classes"),
        ("other10", (), "probe", "10 other classes"),
        ("none", (), "probe", "no classifier"),
        (None, (), "probe", "1000 classes"),  # straight from timm
        (None, ("teacher.kwargs={num_classes: 10}",), "probe", "1000 classes"),  # timm's new classifier is random
        ("ten", (), "none", ""),
        ("ours10", (), "none", ""),
        ("gone", (), None, ""),  # reported by what loads it
        ("strange", (), None, ""),
        ("four", ("teacher.class_map=by_name",), "none", ""),
        ("four", ("teacher.train.epochs=3",), "all", ""),
        ("ten", ("teacher.probe=true",), "probe", ""),
        *(("four", (f"teacher.fit={fit}",), fit, "") for fit in ("none", "probe", "head", "all")),
    ],
)
def test_the_decision(
    name: str | None,
    overrides: tuple[str, ...],
    fit: str | None,
    printed: str,
    weights: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = recipe_with(weights, name, *overrides)
    decided = decide_fit(recipe, open_checked_data(recipe), QUIET)
    assert decided.teacher.chosen_fit == fit
    assert (decided.teacher.train is not None) == (fit in ("head", "all"))
    assert (decided.teacher.probe is not None) == (fit == "probe")
    told = " ".join(capsys.readouterr().err.split())
    assert printed in told
    assert bool(told) == bool(printed)
    if printed:
        assert "teacher.fit=head" in told
        assert "teacher.fit=all" in told
    # What was decided is a valid recipe that says so itself, and nothing is decided twice.
    assert decide_fit(decided, open_checked_data(recipe), QUIET) is decided or fit is None
    assert Recipe.model_validate(decided.model_dump(mode="json", by_alias=True)) == decided


def test_the_choice_brings_its_settings(weights: Path) -> None:
    assert recipe_with(weights, "four", "teacher.fit=probe").teacher.probe == TeacherProbeSection()
    assert recipe_with(weights, "four", "teacher.fit=probe", "teacher.probe.l2=1").teacher.probe == (
        TeacherProbeSection(l2=1)
    )
    for fit in ("head", "all"):
        assert recipe_with(weights, "four", f"teacher.fit={fit}").teacher.train == TrainSection()
        longer = recipe_with(weights, "four", "teacher.train.epochs=3", f"teacher.fit={fit}").teacher
        assert (longer.fit, longer.train) == (fit, TrainSection(epochs=3))


@pytest.mark.parametrize("fit", ["none", "probe"])
def test_a_decision_makes_no_finished_stage_stale(fit: str, weights: Path, tmp_path: Path) -> None:
    recipe = recipe_with(weights, "four", *(["teacher.probe=true"] if fit == "probe" else []))
    folder = RunFolder(tmp_path)
    before = folder.settings_digest(DISTILL, recipe, {})
    decided = recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"fit": fit})})
    assert folder.settings_digest(DISTILL, decided, {}) == before


def test_the_plan_shows_it(weights: Path, tmp_path: Path) -> None:
    plan = make_plan(recipe_with(weights, "four", "method.tap=vector"), RunFolder(tmp_path / "run"))
    assert plan.teacher_fit == "probe"
    assert plan.teacher is not None
    assert plan.teacher.weights.endswith("classifier to be fitted by this run")
    plan = make_plan(recipe_with(weights, "four", "teacher.fit=head"), RunFolder(tmp_path / "run"))
    assert (plan.teacher_fit, plan.stages[0]) == ("head", "train")


@pytest.fixture
def job(weights: Path, tmp_path: Path) -> list[str]:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(recipe_with(weights, "four", "method={name: kd}", "train.epochs=1")), "utf-8")
    return [str(recipe), "--out", str(tmp_path / "run")]


@pytest.mark.usefixtures("no_document_yet")
def test_distill_alone_fits_a_probe_and_the_run_keeps_it(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["distill", *job]) == 0
    assert "4 classes in its weights, 10 classes in the data" in " ".join(capsys.readouterr().out.split())
    folder = RunFolder(tmp_path / "run")
    teacher = folder.read_recipe().teacher
    assert (teacher.fit, teacher.probe) == ("probe", TeacherProbeSection())
    document = read_document(folder / "distill.json", TrainingDocument)
    assert document.teacher_fit == "probe"
    assert document.teacher_probe is not None
    # `run` on the same recipe means the same, and repeats nothing.
    assert main(["run", *job, "--to", "distill", "--json"]) == 0
    assert [one["ran"] for one in json.loads(capsys.readouterr().out)["stages"]] == [False]

    # It is not trained; what `train` says instead works when it is pasted.
    assert main(["train", str(folder.path), "--json"]) == 2
    told = capsys.readouterr().err
    assert "teacher.fit probe" in told
    hint = next(line for line in told.splitlines() if line.startswith("hint: "))
    command = shlex.split(hint.partition("dskd-compress ")[2])
    short = ["--set", "teacher.train.threads=1", "--epochs", "1"]
    shutil.rmtree(folder / "checkpoint")
    assert main([*command, *short]) == 0, capsys.readouterr().err
    teacher = folder.read_recipe().teacher
    assert (teacher.fit, teacher.probe) == ("all", None)
    assert read_document(folder / "teacher.json", TrainingDocument).teacher_fit == "all"
    assert main(["distill", str(folder.path)]) == 0
    document = read_document(folder / "distill.json", TrainingDocument)
    assert (document.teacher_fit, document.teacher_probe) == ("all", None)
    assert document.teacher is not None
    assert document.teacher.weights == "trained by this run"
    assert not (folder / "teacher_probe.safetensors").exists()
