"""A distillation with a teacher cache against the same one without."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from run_support import QUIET, STEPS, Finished, records, small_recipe

from dskd_compress.cli import main
from dskd_compress.console import Output
from dskd_compress.methods.base import Teacher
from dskd_compress.recipe import dump_recipe
from dskd_compress.run_folder import RunFolder
from dskd_compress.stages.distill import run_distill
from dskd_compress.stages.plan import make_plan, print_plan
from dskd_export.documents.training import TeacherCacheFacts, TrainingDocument
from dskd_export.errors import DskdError, EnvironmentProblem, Interrupted, RecipeError

IMAGES, BATCH = 359, 32
CACHE = "teacher.cache.enabled=true"
EXACT = (CACHE, "teacher.cache.features=float32", "data.augment.views=1")


def start(finished: Finished, path: Path) -> RunFolder:
    """A run folder with a trained teacher."""
    folder = RunFolder(path)
    folder.create()
    shutil.copy(finished.folder / "teacher.safetensors", folder / "teacher.safetensors")
    return folder


def distil(finished: Finished, path: Path, *overrides: str) -> tuple[RunFolder, TrainingDocument]:
    folder = start(finished, path)
    return folder, run_distill(small_recipe(*overrides), folder, QUIET)


def cache_of(document: TrainingDocument) -> TeacherCacheFacts:
    assert document.teacher_cache is not None
    return document.teacher_cache


def student_of(folder: RunFolder) -> bytes:
    return (folder / "student.safetensors").read_bytes()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batch sizes of the calls of teachers, without probing and evaluation."""
    seen: list[int] = []
    real = Teacher.forward

    def forward(self: Teacher, images_BCHW: torch.Tensor) -> object:
        seen.append(len(images_BCHW))
        return real(self, images_BCHW)

    monkeypatch.setattr(Teacher, "forward", forward)
    return seen


@pytest.mark.parametrize("tap", ["vector", "map"])
def test_the_same_student_bit_for_bit(tap: str, finished: Finished, tmp_path: Path, asked: list[int]) -> None:
    overrides = (f"method.tap={tap}", "data.augment.views=1")
    plain, without = distil(finished, tmp_path / "plain", *overrides)
    assert without.teacher_cache is None
    assert asked == [BATCH] * (2 + STEPS)
    asked.clear()
    kept, document = distil(finished, tmp_path / "kept", *overrides, *EXACT)
    assert student_of(kept) == student_of(plain)
    assert records(kept.log("student")) == records(plain.log("student"))
    facts = cache_of(document)
    # The second epoch has the images of the first, but for the seven that were left over in it.
    left = IMAGES % BATCH
    assert facts.images_read + facts.images_computed == STEPS * BATCH
    assert facts.images_read >= (STEPS // 2 - left) * BATCH
    assert asked.count(1) == 1
    assert asked.count(BATCH) == 2 + facts.images_computed // BATCH + 1  # statistics, and one for comparison
    assert facts.check_error == 0.0
    assert (kept.teacher_cache).is_dir()
    assert facts.size_gb == pytest.approx(
        sum(path.stat().st_size - 128 for path in kept.teacher_cache.rglob("*.npy")) / 1e9
    )
    manifests = [json.loads(path.read_text()) for path in kept.teacher_cache.glob("*/manifest.json")]
    assert {manifest["output"]["name"] for manifest in manifests} == set(facts.keys) == {"logits_BK", "feat"}


def test_another_run_and_another_method_compute_nothing(
    finished: Finished, tmp_path: Path, asked: list[int]
) -> None:
    """Shared between runs, fresh augmentation every epoch is worth keeping."""
    shared = (CACHE, f"teacher.cache.folder={tmp_path / 'shared'}")
    first, filled = distil(finished, tmp_path / "first", *shared)
    assert cache_of(filled).images_computed == STEPS * BATCH
    assert cache_of(filled).views == 2
    asked.clear()
    second, again = distil(finished, tmp_path / "second", *shared)
    assert (cache_of(again).images_read, cache_of(again).images_computed) == (STEPS * BATCH, 0)
    assert asked == [1, BATCH, BATCH, BATCH]  # shapes, statistics, comparison
    assert student_of(second) == student_of(first)  # also with rounded features
    assert 0 < (cache_of(again).check_error or 0) <= 2**-11
    asked.clear()
    _, kd = distil(finished, tmp_path / "kd", *shared, "method={name: kd}")
    assert cache_of(kd).images_computed == 0
    assert cache_of(kd).keys["logits_BK"] == cache_of(filled).keys["logits_BK"]
    assert asked == [1, BATCH]
    _, other = distil(finished, tmp_path / "other", *shared, "seed=1", "train.epochs=1")
    assert cache_of(other).images_read == 0
    assert not set(cache_of(other).keys.values()) & set(cache_of(filled).keys.values())
    _, none = distil(finished, tmp_path / "none", *shared, "method={name: none}", "train.epochs=1")
    assert none.teacher_cache is None


def test_stopped_and_resumed(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = distil(finished, tmp_path / "whole", *EXACT)
    folder = start(finished, tmp_path / "stopped")
    recipe = small_recipe(*EXACT, "train.checkpoint_steps=5")
    from dskd_compress.training.loop import Trainer

    real = Trainer.save

    def stop(self: Trainer) -> None:
        real(self)
        raise Interrupted("Stopped.")

    monkeypatch.setattr(Trainer, "save", stop)
    with pytest.raises(Interrupted):
        run_distill(recipe, folder, QUIET)
    monkeypatch.undo()
    facts = cache_of(run_distill(recipe, folder, QUIET))
    assert student_of(folder) == student_of(whole)
    assert facts.images_read + facts.images_computed == (STEPS - 5) * BATCH


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        ((), RecipeError, "data.augment.views"),
        (("data.augment.views=2", "data.augment.mixup=0.2"), RecipeError, "data.augment.mixup"),
        (
            ("data.augment.views=2", "data.augment.cutmix=1.0", "data.augment.erase=0.1"),
            RecipeError,
            "data.augment.cutmix and data.augment.erase",
        ),
        (("data.augment.views=2", "teacher.cache.max_gb=0.00001"), EnvironmentProblem, "teacher.cache.max_gb"),
    ],
    ids=["nothing is read again", "mixup", "cutmix and erasing", "too large"],
)
def test_what_is_refused_before_anything_is_trained(
    overrides: tuple[str, ...], error: type[DskdError], message: str, finished: Finished, tmp_path: Path
) -> None:
    folder = start(finished, tmp_path / "run")
    recipe = small_recipe(CACHE, *overrides)
    with pytest.raises(error, match=message):
        make_plan(recipe, folder)
    with pytest.raises(error, match=message):
        run_distill(recipe, folder, QUIET)
    assert not folder.log("student").exists()
    assert not list(folder.path.rglob("*.npy"))


def test_a_small_disk(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = start(finished, tmp_path / "run")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(small_recipe(CACHE, "data.augment.views=3")), encoding="utf-8")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=500_000_000))
    assert main(["distill", str(recipe), "--out", str(folder.path)]) == 4
    error = capsys.readouterr().err
    assert "3 views of 359 images" in error
    assert "0.50 GB are free" in error
    assert "teacher.cache.folder" in error


def test_a_stream_has_no_keys(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dskd_compress.data import TrainLoader

    monkeypatch.setattr(TrainLoader, "sample_keys", lambda *_: None)
    with pytest.raises(RecipeError, match=r"stream.*teacher\.cache\.enabled"):
        make_plan(small_recipe(*EXACT), start(finished, tmp_path / "run"))


def test_the_plan_has_the_size(finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = start(finished, tmp_path / "run")
    overrides = (CACHE, "data.augment.views=3", "method.tap=vector")
    plan = make_plan(small_recipe(*overrides), folder)
    assert not folder.teacher_cache.exists()
    assert plan.teacher_cache is not None
    channels = plan.taps["teacher"].channels
    each = 10 * 4 + 4 + channels * 2 + 4
    assert plan.teacher_cache.bytes_per_image == each
    assert plan.teacher_cache.size_gb == plan.teacher_cache.new_gb == pytest.approx(3 * IMAGES * each / 1e9)
    print_plan(plan, Output(json_output=False))
    text = " ".join(capsys.readouterr().out.split())
    assert "3 times 359 images" in text
    run_distill(small_recipe(*overrides), folder, Output(json_output=False))
    text = " ".join(capsys.readouterr().out.split())
    assert f"in {folder.teacher_cache}, 3 views of 359 images, 0% filled" in text
    assert make_plan(small_recipe("method={name: none}", CACHE), folder).teacher_cache is None
