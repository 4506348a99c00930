"""Bad inputs through the command line: one clear answer, the right exit code, earlier results untouched.

docs/troubleshooting.md quotes exactly these answers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from blocked_imports import block_imports
from readme_blocks import answers, make_photos, with_tiny_models
from safetensors.torch import save_file

from dskd_compress.cli import main
from dskd_compress.timm_import import import_timm

MODELS = "--teacher test_resnet --student test_efficientnet"
SMALL = "--input-size 32 --batch-size 8 --epochs 1 --set data.workers=0 --set teacher.pretrained=false"


def _truncate(root: Path) -> None:
    path = root / "photos/train/circle/00.jpg"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _imagenet_teacher(root: Path) -> None:
    save_file(import_timm().create_model("test_resnet").state_dict(), root / "imagenet.safetensors")


def _rename_a_val_class(root: Path) -> None:
    (root / "photos/val/triangle").rename(root / "photos/val/star")


class _RunsCode:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("code-was-run",)


def _pickle(root: Path) -> None:
    torch.save({"state_dict": {"fc.weight": torch.zeros(1), "fc.bias": _RunsCode()}}, root / "found.pth")


def _typo(root: Path) -> None:
    lines = ["teacher:", "  name: test_resnet", "student:", "  name: test_efficientnet", "train:", "  epoch: 30"]
    (root / "mine.yaml").write_text("\n".join(lines), encoding="utf-8")


def _one_image_class(root: Path) -> None:
    shutil.copytree(root / "photos/train", root / "flat")
    (root / "flat/star").mkdir()
    shutil.copy(root / "flat/circle/00.jpg", root / "flat/star/00.jpg")


def _unlabelled_val(root: Path) -> None:
    for path in sorted((root / "photos/val/circle").iterdir()):
        path.rename(root / "photos/val" / path.name)
    for name in ("circle", "square", "triangle"):
        shutil.rmtree(root / "photos/val" / name)


def _nothing(root: Path) -> None:
    """The command itself is what is wrong."""


@dataclass(frozen=True)
class Case:
    """A bad input.

    Attributes:
        title: of its entry on the page.
        command: what is typed in a folder with `photos/` and the finished run `runs/r18`.
        prepare: makes the input bad.
    """

    title: str
    command: str
    prepare: Callable[[Path], None] = _nothing


CASES = (
    Case("A truncated JPEG, more than `data.max_unreadable` tolerates", "distill runs/r18", _truncate),
    Case(
        "A teacher with other classes than the data, under `teacher.fit: none`",
        f"distill {MODELS} --teacher-checkpoint imagenet.safetensors --data photos --out runs/r18 --input-size 32 "
        "--set teacher.fit=none",
        _imagenet_teacher,
    ),
    Case(
        "Classes that differ between training and validation",
        f"train {MODELS} --data photos --out runs/r18 {SMALL}",
        _rename_a_val_class,
    ),
    Case("A model that timm does not know", "distill runs/r18 --student mobilnetv3_small_100"),
    Case(
        "A checkpoint with code in it",
        f"distill {MODELS} --teacher-checkpoint found.pth --data photos --out runs/r18 --input-size 32",
        _pickle,
    ),
    Case("A typo in a recipe", "run mine.yaml --out runs/r18", _typo),
    Case(
        "A class with a single image, of which a validation set has to be split off",
        f"train {MODELS} --data flat --out runs/r18 {SMALL}",
        _one_image_class,
    ),
    Case(
        "A validation set without labels",
        f"train {MODELS} --data photos --out runs/r18 {SMALL}",
        _unlabelled_val,
    ),
    Case("More images in a batch than there are", "train runs/r18 --batch-size 256"),
)
# These need more than a prepared folder and have a test each.
FULL_DISK = "A full disk"
UNWRITABLE = "A folder that may not be written to"
MISSING_EXTRA = "A missing extra"
NO_GPU = "A GPU that is not there"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos and a run that was trained, distilled and exported. Copy it before use."""
    root = tmp_path_factory.mktemp("project")
    make_photos(root / "photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        limits = (
            "--set train.epochs=1 --set train.batch_size=8 --set teacher.train.threads=1 --set train.threads=1"
        )
        assert main(shlex.split(f"train {MODELS} --data photos --out runs/r18 {SMALL} {limits}")) == 0
        assert main(["distill", "runs/r18"]) == 0
        assert main(shlex.split("export runs/r18 --set export.exporter=legacy")) == 0
    return root


@pytest.fixture
def root(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project, as the working directory."""
    copy = tmp_path / "project"
    shutil.copytree(project, copy)
    monkeypatch.chdir(copy)
    return copy


def snapshot(folder: Path) -> dict[str, str]:
    """Every file below a folder with its sha256."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def normalised(line: str, root: Path) -> str:
    """Without the temporary folder, and what another machine or version would change."""
    line = line.replace(f"{root}/", "")
    line = line.replace(" --set student.pretrained=false", "")  # what `auto` decided here
    line = re.sub(r"(torch|timm) [0-9][0-9a-z.+]*", r"\1 VERSION", line)
    line = line.replace(" --set student.pretrained=false", "")  # decided by an earlier run in the same folder
    return re.sub(r"\d+ bytes", "N bytes", line)


def assert_answer(title: str, code: int, stderr: str, root: Path) -> None:
    """One error line and one hint, which may offer several commands, as on the page, and no traceback."""
    assert "Traceback" not in stderr
    assert "Warning" not in stderr
    lines = stderr.splitlines()
    said = lines[next(number for number, line in enumerate(lines) if line.startswith("error:")) :]
    assert [line.split(":")[0] for line in said if not line.startswith("  ")] == ["error", "hint"], stderr
    quoted = answers()[title]
    assert tuple(normalised(line, root) for line in said) == tuple(
        normalised(with_tiny_models(line), root) for line in quoted.lines
    )
    assert code == quoted.exit_code


def test_the_page_lists_exactly_these() -> None:
    tried = {case.title for case in CASES} | {FULL_DISK, UNWRITABLE, MISSING_EXTRA, NO_GPU}
    assert set(answers()) == tried
    assert len(tried) >= 10


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_it_is_answered_and_changes_nothing(case: Case, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case.prepare(root)
    before = snapshot(root)
    code = main(shlex.split(case.command))
    assert_answer(case.title, code, capsys.readouterr().err, root)
    assert snapshot(root) == before


def test_below_the_limit_a_truncated_jpeg_is_named_and_skipped(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _truncate(root)
    assert main(shlex.split("train runs/r18 --set data.max_unreadable=0.05 --json")) == 0
    output = capsys.readouterr()
    assert "warning: left out 1 image that cannot be read: train/circle/00.jpg\n" in output.err
    assert '"skipped": ["train/circle/00.jpg"]' in output.out
    # A training that went through takes the earlier one's place, and leaves nothing beside it.
    assert "max_unreadable: 0.05" in (root / "runs/r18/recipe.yaml").read_text(encoding="utf-8")
    log = (root / "runs/r18/teacher.train.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in log] == [*range(1, 10), 9]
    assert not [path.name for path in (root / "runs/r18").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    "command", ["train runs/r18", "train runs/r18 --seed 1 --epochs 3", "distill runs/r18 --method kd"]
)
def test_a_training_that_ends_in_its_first_epoch_leaves_the_earlier_one(command: str, root: Path) -> None:
    """The bad image is met after some steps, whose records must not take the place of the old log."""
    _truncate(root)
    before = snapshot(root)
    assert main(shlex.split(command)) == 3
    assert snapshot(root) == before


@pytest.fixture
def full_disk(root: Path) -> Iterator[Path]:
    """A small file system of its own that holds the run and has not a block left."""
    disk = root / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        shutil.copytree(root / "runs/r18", disk / "r18")
        try:
            with (disk / "fill").open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        except OSError:
            pass
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk(full_disk: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(full_disk)
    code = main(["export", "disk/r18"])
    assert_answer(FULL_DISK, code, capsys.readouterr().err, root)
    assert snapshot(full_disk) == before


@pytest.mark.parametrize(
    "command",
    [
        "train disk/r18 --seed 1",
        "distill disk/r18 --seed 1",
        "report disk/r18",
        f"train {MODELS} --data photos --out disk/new {SMALL}",
    ],
)
def test_a_full_disk_in_every_stage_that_writes(
    command: str, full_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(full_disk)
    assert main(shlex.split(command)) == 4
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert re.search(r"^error: (disk/.* cannot be written: No space left on device|The disk is full)", error, re.M)
    assert snapshot(full_disk) == before


def test_an_unwritable_folder(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "frozen").mkdir()
    (root / "frozen").chmod(0o555)
    before = snapshot(root)
    nobody = 65534
    owner = os.geteuid()
    if owner == 0:  # root may write anywhere, and is nobody in particular for a moment
        os.seteuid(nobody)
    try:
        code = main(shlex.split(f"train {MODELS} --data photos --out frozen/r18 {SMALL}"))
    finally:
        os.seteuid(owner)
    assert_answer(UNWRITABLE, code, capsys.readouterr().err, root)
    assert snapshot(root) == before
    assert list((root / "frozen").iterdir()) == []


def test_a_file_in_place_of_the_folder(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "taken").write_text("mine", encoding="utf-8")
    assert main(shlex.split(f"train {MODELS} --data photos --out taken/r18 {SMALL}")) == 4
    assert "error: taken/r18 cannot be written to: Not a directory.\n" in capsys.readouterr().err
    assert (root / "taken").read_text(encoding="utf-8") == "mine"


def test_a_missing_extra(root: Path, tmp_path: Path) -> None:
    """In a process of its own, where ONNX Runtime cannot be imported."""
    before = snapshot(root)
    done = subprocess.run(
        [sys.executable, "-m", "dskd_compress", "validate", "runs/r18"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=block_imports(tmp_path / "blocker", "onnxruntime"),
    )
    assert_answer(MISSING_EXTRA, done.returncode, done.stderr, root)
    assert snapshot(root) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_a_gpu_that_is_not_there(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(root)
    code = main(["distill", "runs/r18", "--device", "cuda"])
    assert_answer(NO_GPU, code, capsys.readouterr().err, root)
    assert snapshot(root) == before
