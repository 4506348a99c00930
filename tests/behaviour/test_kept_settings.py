"""What the flags of a command say is kept in the run: `run` afterwards repeats nothing and makes nothing less."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_support import SMALL_STAGES, Finished, small_recipe

from dskd_compress.cli import main
from dskd_compress.precisions import settle_precisions
from dskd_compress.run_folder import STAGE_NAMES, RunFolder

pytestmark = pytest.mark.usefixtures("no_document_yet")

LEGACY = ["--set", "export.exporter=legacy"]  # faster, and all the same here
FEW = ["--set", "export.calibration.images=8", "--set", "export.quantize.search=false", *LEGACY]

# Each stage with flags; all of them differ from what the run was made with.
FLAGS = {
    "train": ["--epochs", "1", "--batch-size", "64"],
    "distill": ["--epochs", "1", "--method", "kd", "--lr", "0.001"],
    "tune": ["--amp", "bf16", "--set", "tune.epochs=1", "--set", "tune.calibration_batches=1"],
    "export": ["--precision", "fp16,int8", "--target", "ada", *FEW],
    "validate": ["--precision", "fp32", "--precision", "fp16", "--images", "40", "--set", "budget.top1_drop=0.5"],
    "benchmark": [
        *("--batch", "1", "--runner", "onnxruntime", "--precision", "fp16"),
        *("--set", "benchmark.teacher=false", "--set", "budget.latency_p99_ms=100000"),
    ],
    "report": ["--set", "report.title=Bolts"],
}


def stale(folder: RunFolder, stages: tuple[str, ...] = STAGE_NAMES) -> dict[str, str]:
    """Stage -> why `run` would repeat it."""
    recipe = folder.read_recipe()
    found = {name: folder.why_rerun(name, recipe) for name in stages}
    return {name: why for name, why in found.items() if why is not None}


def models(folder: RunFolder) -> set[str]:
    return {path.name.split(".")[1] for path in folder.bundle.glob("model.*.onnx")}


def test_run_repeats_nothing_of_what_the_commands_made(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished.copy(tmp_path / "run")
    assert set(FLAGS) == set(STAGE_NAMES)
    for done, stage in enumerate(STAGE_NAMES, start=1):
        assert main([stage, str(folder.path), *FLAGS[stage]]) in (0, 5, 6), capsys.readouterr().err
        assert stale(folder, STAGE_NAMES[:done]) == {}, f"after {stage}"
    written = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    capsys.readouterr()
    main(["run", str(folder.path), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert [(one["stage"], one["why"]) for one in document["stages"]] == [
        (name, "unchanged") for name in STAGE_NAMES
    ]
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == written
    assert models(folder) == {"fp32", "fp16", "int8"}


def holding(folder: RunFolder, *precisions: str) -> RunFolder:
    for name in precisions:
        (folder.bundle / f"model.{name}.onnx").write_bytes(b"")
    return folder


def test_a_bundle_is_not_replaced_by_a_smaller_one(finished: Finished, tmp_path: Path) -> None:
    folder = holding(finished.copy(tmp_path / "run"), "fp16", "int8")
    recipe, said = settle_precisions(small_recipe(), folder, ["train.epochs=3", "export.opset=19"])
    assert recipe.export.precisions == ("fp32", "fp16", "int8")
    assert [sentence for sentence in said if "fp16, int8" in sentence] == said != []
    more, said = settle_precisions(small_recipe("export.precisions=[bf16]"), folder, [])
    assert (set(more.export.precisions), len(said)) == ({"fp32", "bf16", "fp16", "int8"}, 1)
    same = small_recipe("export.precisions=[int8, fp16]")
    assert settle_precisions(same, folder, []) == (same, [])


def test_the_settings_of_those_models_are_kept_too(finished: Finished, tmp_path: Path) -> None:
    """A recipe file is given again after `export --precision fp16,int8 --target ada`."""
    folder = holding(finished.copy(tmp_path / "run"), "fp16", "int8")
    exported = small_recipe("export.precisions=[fp16, int8]", "export.target=ada")
    folder.keep(exported, ["export"])
    recipe, _ = settle_precisions(small_recipe(), folder, ["train.epochs=3"])
    assert recipe.export == exported.export
    recipe, _ = settle_precisions(small_recipe("export.target=hopper"), folder, ["export.target=hopper"])
    assert (recipe.export.target, recipe.export.precisions) == ("hopper", ("fp16", "int8"))


@pytest.mark.parametrize("given", ["export.precisions=[fp32]", "export={}"])
def test_it_is_where_the_command_says_so(finished: Finished, tmp_path: Path, given: str) -> None:
    folder = holding(finished.copy(tmp_path / "run"), "fp16", "int8")
    recipe = small_recipe(given)
    assert settle_precisions(recipe, folder, [given]) == (recipe, [])


@pytest.mark.parametrize(
    ("given", "precisions"),
    [
        (["export.target=jetson-orin"], "auto"),
        (["export.target=cpu"], "auto"),
        (["export.target=ada", "export.precisions=[fp32]"], ("fp32",)),
        (["export.target=ada", "export.precisions=[fp16]"], ("fp16",)),
        (["train.epochs=3"], ("fp32",)),
    ],
)
def test_a_target_alone_chooses_the_precisions_that_suit_it(
    given: list[str], precisions: object, tmp_path: Path
) -> None:
    recipe, said = settle_precisions(small_recipe(*given), RunFolder(tmp_path / "run"), given)
    assert recipe.export.precisions == precisions
    assert len(said) == (precisions == "auto")


def test_the_same_target_again_changes_nothing(finished: Finished, tmp_path: Path) -> None:
    """The command line of a finished run is given again; its recipe has no bundle to look at the first time."""
    given = ["export.target=jetson-orin"]
    asked = small_recipe(*given)
    first, _ = settle_precisions(asked, RunFolder(tmp_path / "none"), given)
    folder = holding(finished.copy(tmp_path / "run"), "fp16", "int8")
    folder.keep(first, ["export"])
    assert settle_precisions(asked, folder, given) == (first, [])
    other, said = settle_precisions(small_recipe("export.target=cpu"), folder, ["export.target=cpu"])
    assert (other.export.precisions, len(said)) == (("fp32", "fp16", "int8"), 1), "nothing is lost"
    chosen = small_recipe(*given, "export.precisions=[int8, fp16]")
    folder.keep(chosen, ["export"])
    assert settle_precisions(asked, folder, given)[0] == chosen, "in the words of the run, so nothing is repeated"


def test_a_choice_that_means_the_same_models_keeps_the_words_of_the_run(
    finished: Finished, tmp_path: Path
) -> None:
    """`export --precision fp16,int8` where the target of the run makes these."""
    folder = finished.copy(tmp_path / "run")
    folder.keep(small_recipe("export.target=jetson-orin", "export.precisions=auto"), ["export"])
    own = folder.read_recipe()

    def settle(*given: str) -> object:
        recipe, said = settle_precisions(folder.read_recipe(given), folder, given)
        assert said == []
        return recipe.export.precisions

    for same in ("[fp16, int8]", "[fp32, int8, fp16]", "auto"):
        assert settle(f"export.precisions={same}") == own.export.precisions == "auto"
    assert settle("export.precisions=[fp16]") == ("fp16",)
    folder.keep(small_recipe("export.precisions=[int8, fp16]", "export.target=jetson-orin"), ["export"])
    assert settle("export.precisions=[fp16, int8]") == ("int8", "fp16")
    assert settle("export.precisions=auto") == "auto", "what suits the target, also of another one"


def test_a_target_leaves_chosen_precisions_alone(tmp_path: Path) -> None:
    """The recipe of the run chose them, before there is a bundle or after."""
    recipe = small_recipe("export.precisions=[fp16]", "export.target=ada")
    assert settle_precisions(recipe, RunFolder(tmp_path / "run"), ["export.target=ada"]) == (recipe, [])


def test_what_leaves_the_bundle_is_named(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished.copy(tmp_path / "run")
    (folder.bundle / "model.fp16.onnx").write_bytes(b"an earlier model")
    assert main(["export", str(folder.path), "--precision", "fp32", "--set", "export.teacher=false", *LEGACY]) == 0
    assert "No longer in the bundle: fp16" in capsys.readouterr().out


def test_a_key_of_an_earlier_stage_holds_for_one_call(finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "run")
    assert main(["report", str(folder.path), "--set", "train.epochs=50", "--set", "report.title=Bolts"]) == 0
    assert folder.read_recipe() == small_recipe("report.title=Bolts")
    assert stale(folder, SMALL_STAGES) == {}
