"""Two processes on gloo do what one does; a lost one ends the job; a signal to one stops both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from process_support import environments, exit_codes, start_function, start_together
from run_support import Finished, records
from trainer_support import Case, train_case, train_cases

from dskd_compress.cli import main
from dskd_compress.config import DistMethod, DskdMethod, KdMethod, NoneMethod, TrainSection
from dskd_compress.launch import ProcessRank, get_process_rank
from dskd_compress.recipe import dump_recipe
from dskd_compress.run_folder import RunFolder
from dskd_compress.training.distributed import join
from dskd_export.errors import RecipeError

# A calm learning rate: with a wild one, rounding alone drives two equal trainings apart within ten steps.
CALM = {"epochs": 1, "batch_size": 32, "lr": 1e-3, "ema_decay": 0.9, "clip_grad": 1.0, "device": "cpu"}
# Everything in DSKD that draws, or that is taken over the batch.
FULL = DskdMethod(
    stats_batches=1,
    denoiser_data="both",
    start="sdedit",
    start_scale="teacher",
    correct_only=True,
    hash_bias="median",
)
CASES = {
    "dskd": Case(FULL, TrainSection(**CALM)),
    "dskd on batch norm": Case(FULL, TrainSection(**CALM), student="test_efficientnet"),
    "dist": Case(DistMethod(), TrainSection(**CALM)),
    "kd in two pieces": Case(KdMethod(), TrainSection(**CALM, grad_accumulation=2)),
    "frozen batch norm": Case(
        NoneMethod(), TrainSection(**CALM, freeze_batch_norm=True), student="test_resnet", mix=False
    ),
    "classifier alone": Case(NoneMethod(), TrainSection(**CALM), student="test_resnet", head=True),
    "cross-entropy": Case(NoneMethod(), TrainSection(**CALM), student="test_resnet", mix=False),
}


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[dict[str, Any]]]]:
    """What each of two processes has of each case."""
    folder = tmp_path_factory.mktemp("two")
    cases = list(CASES.values())
    processes = [start_function(train_cases, cases, str(folder), environment) for environment in environments()]
    assert exit_codes(*processes) == [0, 0]
    return {
        name: [json.loads((folder / f"{number}.{rank}.json").read_text()) for rank in range(2)]
        for number, name in enumerate(CASES)
    }


@pytest.mark.parametrize("name", CASES)
def test_two_processes_do_what_one_does(
    name: str, by_two: dict[str, list[list[dict[str, Any]]]], tmp_path: Path
) -> None:
    leader, other = by_two[name]
    assert leader == other
    *alone, sums = train_case(CASES[name], tmp_path)
    *together, sums_together = leader
    assert [record["step"] for record in together] == [record["step"] for record in alone]
    assert len(alone) == 6
    for one, two in zip(alone, together, strict=True):
        if one["kind"] == "step":
            assert two["losses"] == pytest.approx(one["losses"], rel=1e-5, abs=1e-6)
            assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
            assert two["learning_rate"] == one["learning_rate"]
        else:
            assert two["val_loss"] == pytest.approx(one["val_loss"], rel=1e-5)
            assert two["top1"] == one["top1"]
    for kind, expected in sums.items():
        assert sums_together[kind] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def begin(finished: Finished, path: Path) -> tuple[RunFolder, list[str]]:
    """A run folder with a trained teacher, and the command that distils in it."""
    path.mkdir(exist_ok=True)
    folder = finished.with_teacher(path / "run")
    recipe = path / "recipe.yaml"
    recipe.write_text(dump_recipe(finished.recipe), encoding="utf-8")
    settings = ("checkpoint_steps=2", "device=cpu", "ema_decay=0.9", "epochs=1", "lr=1e-5")
    sets = [word for setting in settings for word in ("--set", f"train.{setting}")]
    return folder, ["distill", str(recipe), "--out", str(folder.path), *sets]


@pytest.fixture(scope="module")
def by_torchrun(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, str]:
    """A distillation by two processes under their real starter, and what it printed."""
    folder, command = begin(finished, tmp_path_factory.mktemp("torchrun"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run(
        [*torchrun, "-m", "dskd_compress", *command, "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_torchrun(by_torchrun: tuple[RunFolder, str], finished: Finished, tmp_path: Path) -> None:
    """It comes to the numbers of one process."""
    folder, stdout = by_torchrun
    (line,) = stdout.strip().splitlines()
    assert json.loads(line)["steps"] == 11
    alone, command = begin(finished, tmp_path)
    assert main(command) == 0
    for one, two in zip(records(alone.log("student")), records(folder.log("student")), strict=True):
        if one["kind"] == "step":
            assert two["losses"] == pytest.approx(one["losses"], rel=1e-4, abs=1e-5)


def test_lost_stopped_and_gone_on_with_it_is_the_student_of_an_undisturbed_job(
    by_torchrun: tuple[RunFolder, str], finished: Finished, tmp_path: Path
) -> None:
    whole, _ = by_torchrun
    folder, command = begin(finished, tmp_path)
    said = tmp_path / "said"
    # The second is lost at its fourth step: the first says so in one line, and ends.
    processes = start_together(command, said, {1: ("batch", 4)})
    assert exit_codes(*processes) == [4, -signal.SIGKILL]
    errors = [line for line in said.with_suffix(".0").read_text().splitlines() if "error:" in line]
    assert errors == ["error: Another process of this training ended."]
    assert "Traceback" not in said.with_suffix(".0").read_text()

    # The second is asked to stop: both do, after the same step.
    processes = start_together(command, said, {1: ("sigterm at batch", 3)})
    assert exit_codes(*processes) == [130, 130]
    text = said.with_suffix(".0").read_text()
    assert "Resuming student training at step 2/11." in text
    assert "Stopped by another process after step 5 of 11" in text
    assert said.with_suffix(".1").read_text() == ""

    assert exit_codes(*start_together(command, said)) == [0, 0]
    text = said.with_suffix(".0").read_text()
    assert "Resuming student training at step 5/11." in text
    assert "epoch 1/1" in text
    assert said.with_suffix(".1").read_text() == ""  # one process speaks
    for name in ("student.safetensors", "teacher.safetensors"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert records(folder.log("student")) == records(whole.log("student"))


def test_a_silent_process_is_waited_for_no_longer_than_the_recipe_says(finished: Finished, tmp_path: Path) -> None:
    _, command = begin(finished, tmp_path)
    command += ["--set", "train.distributed_timeout_s=3"]
    first, second = start_together(command, tmp_path / "said", {1: ("stall at batch", 2)})
    assert exit_codes(first) == [4]
    second.kill()
    text = (tmp_path / "said.0").read_text()
    assert "error: Another process of this training has not answered for 3 s." in text
    assert "train.distributed_timeout_s" in text


def test_a_batch_that_cannot_be_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environments(3)[0].items():
        monkeypatch.setenv(name, value)
    expected = "batch_size 64 cannot be divided among 3 processes in 2 pieces.*multiple of 6"
    with pytest.raises(RecipeError, match=expected), join(TrainSection(grad_accumulation=2)):
        raise AssertionError("not reached")


@pytest.mark.parametrize(("processes", "pieces"), [(64, 1), (8, 8)])
def test_a_batch_that_leaves_one_image_to_each(
    processes: int, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environments(processes)[0].items():
        monkeypatch.setenv(name, value)
    section = TrainSection(batch_size=64, grad_accumulation=pieces)
    with pytest.raises(RecipeError, match=r"one image.*train\.batch_size=128"), join(section):
        raise AssertionError("not reached")


@pytest.mark.parametrize("command", ["run", "export", "report"])
def test_other_commands_are_not_for_several_processes(command: str, tmp_path: Path) -> None:
    for process in start_together([command, "--out", str(tmp_path / "x")], tmp_path / "said"):
        assert exit_codes(process) == [2]
    text = (tmp_path / "said.0").read_text()
    assert f"error: {command} was started as 2 processes." in text
    assert (tmp_path / "said.1").read_text() == ""


def test_slurm_alone_makes_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch script has these of all its tasks, and is one process."""
    for name, value in (("SLURM_NTASKS", "8"), ("SLURM_PROCID", "0"), ("SLURM_LOCALID", "0")):
        monkeypatch.setenv(name, value)
    assert get_process_rank() == ProcessRank()
