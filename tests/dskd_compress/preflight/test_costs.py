"""The estimates from shapes, against the exact ones of a real pass and the files of a real run."""

from __future__ import annotations

import pytest
import torch
from run_support import Finished, small_recipe

from dskd_compress.methods import create_task
from dskd_compress.preflight.costs import estimate_disk_mb, estimate_memory_mb, measure_cost
from dskd_compress.preflight.models import create_shapes
from dskd_compress.run_folder import RunFolder
from dskd_compress.stages.plan import estimate_memory
from dskd_compress.stages.setup import create_student


@pytest.mark.parametrize("name", ["resnet18", "test_efficientnet", "test_vit"])
def test_memory_is_that_of_the_plan(name: str) -> None:
    size = 96
    recipe = small_recipe(f"student.name={name}", "method.name=none", f"data.input_size={size}")
    student, format = create_student(recipe, 10)
    task = create_task(recipe.method, student, None, label_smoothing=0.0, seed=0, device=torch.device("cpu"))
    exact = estimate_memory(task, format.input_size, 10, recipe)
    cost = measure_cost(create_shapes(recipe, "student", 10), format.input_size)
    assert cost.values == sum(tensor.numel() for tensor in student.state_dict().values())
    assert estimate_memory_mb(recipe.train, 0, cost) == pytest.approx(exact.total_mb, rel=0.2)


def test_a_larger_batch_and_half_the_bits() -> None:
    cost = measure_cost(create_shapes(small_recipe(), "student", 10), (3, 32, 32))
    one, four, half = (
        estimate_memory_mb(small_recipe(*keys).train, 0, cost)
        for keys in (["train.batch_size=32"], ["train.batch_size=128"], ["train.precision=bf16"])
    )
    assert half < one < four


def test_disk_is_less_than_a_run_writes(finished: Finished) -> None:
    """The estimate is the least: a disk with less is refused, so it must never be too high."""
    student, teacher = (
        measure_cost(create_shapes(finished.recipe, role, 10), None).values for role in ("student", "teacher")
    )
    written = sum(path.stat().st_size for path in finished.folder.path.rglob("*") if path.is_file()) / 1e6
    stages = [outcome.stage for outcome in finished.outcomes]
    fixed = estimate_disk_mb(finished.recipe, [], 0, 0)
    estimate = estimate_disk_mb(finished.recipe, stages, teacher, student) - fixed
    assert written / 4 < estimate < written
    more = small_recipe("export.precisions=[fp16, int8]")
    assert estimate_disk_mb(more, ["export"], 0, 1_000_000) - fixed == pytest.approx(4 + 2 + 1)
    assert isinstance(finished.folder, RunFolder)
