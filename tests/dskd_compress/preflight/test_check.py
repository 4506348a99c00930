"""Everything that is missing is reported at once, before any work."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from readme_blocks import make_photos
from run_support import QUIET, SMALL_STAGES, Finished, small_recipe
from safetensors.torch import save_file

from dskd_compress.cli import main
from dskd_compress.models import create_model
from dskd_compress.preflight import check_run
from dskd_compress.run_folder import RunFolder
from dskd_compress.timm_import import import_timm
from dskd_export.errors import (
    CheckpointError,
    DataError,
    EnvironmentProblem,
    MissingExtra,
    ModelError,
    SeveralProblems,
)

pytestmark = pytest.mark.usefixtures("no_document_yet")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a folder of photos of three classes."""
    monkeypatch.chdir(tmp_path)
    make_photos(tmp_path / "photos")
    return tmp_path


# Of twelve things: the exit code that each alone has, and a word of its message and of its cure.
TWELVE = [
    (3, "the training set has no images in class 'square'", "Add images"),
    (3, "the validation set has no images in class 'circle'", "Add images"),
    (4, "cannot be written to", "--out"),
    (4, "onnxscript is not installed", "pip install 'dskd-compress[onnx]'"),
    (
        4,
        "nvidia-modelopt, onnxconverter-common are not installed; int8, fp16 need them",
        "pip install 'dskd-compress[quant]'",
    ),
    (4, "wandb is not installed", "pip install 'dskd-compress[wandb]'"),
    (4, "Provider cuda is not available", ""),
    (4, "train.device is cuda", "--device cpu"),
    (3, "fewer than one batch of 4096", "--set train.batch_size="),
    (3, "student.safetensors does not fit", ""),
    (2, "class_map.yaml cannot be read", ""),
    (3, "has no model 'mobilnetv2_100'", "mobilenetv2_100"),
]


@pytest.fixture
def twelve(photos: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command line of a run that lacks twelve things."""
    for folder in ("photos/train/square", "photos/val/circle"):
        shutil.rmtree(photos / folder)
        (photos / folder).mkdir()
    for module in ("onnxscript", "modelopt", "onnxconverter_common", "wandb"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (photos / "file").write_text("no folder")
    save_file(import_timm().create_model("test_vit").state_dict(), photos / "student.safetensors")
    models = ["--teacher", "mobilnetv2_100", "--student", "test_efficientnet", "--data", "photos"]
    flags = ["--student-checkpoint", "student.safetensors", "--batch-size", "4096", "--device", "cuda"]
    sets = ["--set", "teacher.class_map=class_map.yaml", "--set", "tracking.trackers=[wandb]"]
    later = ["--target", "jetson-orin", "--provider", "cuda", "--out", "file/run"]
    return ["run", *models, *flags, *sets, *later]


def read_all(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def test_twelve_things_at_once(twelve: list[str], photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = read_all(photos)
    assert main([*twelve, "--json"]) == 2, "the smallest code of theirs"
    error = json.loads(capsys.readouterr().out)["error"]
    faults: list[dict[str, Any]] = error["faults"]
    assert len(faults) == len(TWELVE), [fault["message"] for fault in faults]
    for fault, (code, what, cure) in zip(faults, TWELVE, strict=True):
        assert (fault["exit_code"], what in fault["message"]) == (code, True), fault
        assert fault["hint"]
        assert cure in fault["hint"], fault
    assert error["exit_code"] == 2
    assert read_all(photos) == before


def test_they_are_a_list_that_fits_a_terminal(
    twelve: list[str], photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_all(photos)
    assert main(twelve) == 2
    _, error = capsys.readouterr()
    numbered = [line for line in error.splitlines() if line[:4].strip().rstrip(".").isdecimal()]
    assert [int(line[:3]) for line in numbered] == list(range(1, 13))
    for line in error.splitlines():
        assert len(line) <= 80 or "--" in line or "pip" in line, line
    assert "Traceback" not in error
    assert read_all(photos) == before


def test_a_dry_run_reports_the_same(twelve: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*twelve, "--json", "--dry-run"]) == 2
    assert len(json.loads(capsys.readouterr().out)["error"]["faults"]) == 12


def test_a_single_fault_keeps_its_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(DataError) as refused:
        check_run(small_recipe("data.source=none"), folder, SMALL_STAGES, QUIET)
    assert refused.value.problems == (refused.value,)
    line = ["run", "--out", str(folder.path), "--data", "none", "--teacher", "test_resnet", "--student"]
    assert (
        main(
            [
                *line,
                "test_efficientnet",
                "--set",
                "teacher.train.epochs=1",
                "--set",
                "teacher.pretrained=false",
                "--json",
            ]
        )
        == 3
    )
    error = json.loads(capsys.readouterr().out)["error"]
    assert [fault["kind"] for fault in error["faults"]] == ["DataError"]
    assert error["message"] == error["faults"][0]["message"]
    assert not folder.path.exists()


def test_a_ready_run(tmp_path: Path) -> None:
    ready = check_run(small_recipe(), RunFolder(tmp_path / "run"), SMALL_STAGES, QUIET)
    found = ready.preflight
    assert (found.classes, found.train_images, found.val_images) == (10, 359, len(ready.sets.val))
    assert set(found.pending.values()) == {"it has not run yet"}
    assert found.warnings == []
    assert found.disk_mb is not None
    assert found.memory_mb is not None
    assert not (tmp_path / "run").exists()


def test_only_what_has_to_run_is_checked(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report needs no device, no onnxscript, and no weights of anything."""
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    recipe = small_recipe("report.title=Bolts")
    ready = check_run(recipe, finished.folder, SMALL_STAGES, QUIET)
    assert list(ready.preflight.pending) == ["report"]
    assert ready.preflight.disk_mb is None
    with pytest.raises(MissingExtra):
        check_run(recipe, finished.folder, SMALL_STAGES, QUIET, first="export")


def test_a_full_disk_and_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path / "run")
    monkeypatch.setattr("dskd_compress.preflight.machine.available_memory", lambda: 1_000_000)
    warned = check_run(small_recipe(), folder, SMALL_STAGES, QUIET).preflight
    assert warned.memory_free_mb == 1.0
    assert [sentence for sentence in warned.warnings if "train.batch_size" in sentence]
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(Exception, match="1 MB free") as refused:
        check_run(small_recipe(), folder, SMALL_STAGES, QUIET)
    assert refused.value.exit_code == 4  # type: ignore[attr-defined]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc")
def test_a_place_that_takes_no_files_is_one_of_the_faults(tmp_path: Path) -> None:
    """It is no lack of room: /proc grants root all permissions and has no size."""
    with pytest.raises(SeveralProblems) as refused:
        check_run(small_recipe("data.source=none"), RunFolder(Path("/proc/nope/r")), SMALL_STAGES, QUIET)
    assert [type(fault) for fault in refused.value.problems] == [DataError, EnvironmentProblem]
    with pytest.raises(EnvironmentProblem, match="/proc/nope/r cannot be written to"):
        check_run(small_recipe(), RunFolder(Path("/proc/nope/r")), SMALL_STAGES, QUIET)


def test_a_file_system_without_a_size_may_take_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = os.statvfs(tmp_path)
    unsized = SimpleNamespace(f_blocks=0, f_bavail=0, f_bfree=0, f_frsize=facts.f_frsize, f_flag=0)
    monkeypatch.setattr("os.statvfs", lambda _: unsized)
    ready = check_run(small_recipe(), RunFolder(tmp_path / "run"), SMALL_STAGES, QUIET)
    assert ready.preflight.disk_free_mb is None
    assert not list(tmp_path.iterdir())


def test_checkpoints_of_other_models(tmp_path: Path) -> None:
    recipe = small_recipe("teacher.train=null", "teacher.class_map=null")
    other = tmp_path / "other.safetensors"
    save_file(import_timm().create_model("test_vit").state_dict(), other)
    keys = [f"teacher.checkpoint={other}", f"student.checkpoint={other}"]
    recipe = small_recipe("teacher.train=null", *keys)
    with pytest.raises(SeveralProblems) as refused:
        check_run(recipe, RunFolder(tmp_path / "run"), SMALL_STAGES, QUIET)
    assert [type(fault) for fault in refused.value.problems] == [CheckpointError, CheckpointError]
    own = tmp_path / "own.safetensors"
    section = recipe.teacher.model_copy(update={"checkpoint": None, "pretrained": False})
    save_file(create_model(section, num_classes=10, input_size=32).state_dict(), own)
    fits = small_recipe("teacher.train=null", f"teacher.checkpoint={own}")
    assert check_run(fits, RunFolder(tmp_path / "run"), SMALL_STAGES, QUIET).preflight.warnings == []


def test_a_teacher_without_weights(tmp_path: Path) -> None:
    recipe = small_recipe("teacher.train=null", "teacher.pretrained=false")
    with pytest.raises(ModelError, match="has no weights"):
        check_run(recipe, RunFolder(tmp_path / "run"), SMALL_STAGES, QUIET)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        (
            ["export.precisions=[fp16]", "budget.student_drop=0.02"],
            ["70 validation images", "student_drop (needs ", "fp16's top1_drop (needs "],
        ),
        (["export.precisions=[fp16]", "validate.images=40"], ["40 validation images"]),
        (["budget.student_drop=0.9"], ["70 validation images can show"]),
        (["budget.student_drop=null"], []),
    ],
)
def test_how_many_images_a_verdict_needs_is_said_before_the_run(
    keys: list[str], named: list[str], tmp_path: Path
) -> None:
    found = check_run(small_recipe(*keys), RunFolder(tmp_path / "run"), SMALL_STAGES, QUIET).preflight
    assert [word for word in named if word not in found.sample_size] == []
    assert bool(found.sample_size) == bool(named)
    export_only = check_run(small_recipe(*keys), RunFolder(tmp_path / "run"), SMALL_STAGES[:3], QUIET).preflight
    assert export_only.sample_size == ""
