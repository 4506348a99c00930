"""Dry run of a distillation."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from dskd_compress.config import DskdMethod, Recipe, TeacherFit
from dskd_compress.console import Output
from dskd_compress.data import DataSets, ImageSet, Preprocessing, StreamSet, TrainLoader
from dskd_compress.methods import MethodTask, create_task
from dskd_compress.models import model_facts, recompute_activations, state_sha256
from dskd_compress.run_folder import RunFolder, list_stages
from dskd_compress.stages.setup import (
    create_student,
    create_untrained_teacher,
    make_pair,
    open_checked_data,
    set_student_start,
)
from dskd_compress.teachers.cache.disk import format_bytes
from dskd_compress.teachers.cache.plan import TeacherCache, TeacherCachePlan
from dskd_compress.teachers.fit import decide_fit
from dskd_compress.teachers.load import TeacherModel, load_own_teacher
from dskd_compress.teachers.presence import explain_absence
from dskd_compress.teachers.probe import attach_unfitted_probe
from dskd_compress.training.device import autocast, resolve_device
from dskd_compress.training.optim import create_optimization
from dskd_export.documents.base import Document
from dskd_export.documents.training import ModelFacts, TapFacts

_FITS: dict[TeacherFit, str] = {
    "none": "none: used as it is",
    "probe": "probe: a linear classifier on its frozen features",
    "head": "head: its classifier is trained first",
    "all": "all: everything is trained first",
}


class MemoryEstimate(Document):
    """Device memory of a training step in megabytes (10^6 bytes)."""

    weights_mb: float = Field(
        description="parameters and buffers of teacher, student, training-only modules, and the weight average"
    )
    gradients_mb: float
    optimizer_mb: float = Field(description="SGD with momentum keeps one value a parameter, Adam two")
    activations_mb: float = Field(
        description="kept for the backward pass of a piece of a step; measured on two images and scaled"
    )
    total_mb: float


class Plan(Document):
    """Plan of a distillation."""

    recipe: str
    method: str
    device: str
    classes: int
    train_images: int | None = Field(description="None: a stream that does not tell")
    val_images: int | None
    teacher: ModelFacts | None
    teacher_fit: TeacherFit | None = Field(description="how the teacher gets the classes of the data")
    student: ModelFacts
    taps: dict[str, TapFacts]
    training_only_parameters: dict[str, int]
    steps_per_epoch: int
    steps: int
    memory: MemoryEstimate
    teacher_cache: TeacherCachePlan | None
    stages: list[str]
    writes: dict[str, str] = Field(description="what -> where")


def make_plan(recipe: Recipe, folder: RunFolder) -> Plan:
    """Plan a distillation: build everything, train and write nothing. An untrained teacher is random.

    Raises:
        DataError, ModelError, EnvironmentProblem: as the training would.
    """
    device = resolve_device(recipe.train.device)
    autocast(recipe.train, device)
    sets = open_checked_data(recipe)
    recipe = decide_fit(recipe, sets, Output(json_output=False, quiet=True))
    classes = len(sets.classes)
    if recipe.student.pretrained == "auto":  # weights change no plan, and a dry run downloads none
        recipe = set_student_start(recipe, False)
    student, format = create_student(recipe, classes)
    teacher = None
    if explain_absence(recipe, folder) is None:
        teacher = _plan_teacher(recipe, folder, sets, student, format)
    if recipe.train.grad_checkpointing:
        recompute_activations(student)
    pair = None if teacher is None else make_pair(student, format, teacher)
    cpu = torch.device("cpu")
    task = create_task(recipe.method, student, pair, label_smoothing=0.0, seed=recipe.seed, device=cpu)
    if recipe.train.freeze_batch_norm:
        task.module.freeze_batch_norm()
    loader = TrainLoader(
        sets, recipe.data, format, batch_size=recipe.train.batch_size, seed=recipe.seed, device=device
    )
    steps_per_epoch = len(loader)
    create_optimization(task.module, recipe.train, steps_per_epoch)
    cache = None
    if recipe.teacher.cache.enabled and teacher is not None and task.teacher is not None:
        cache = TeacherCache.prepare(
            recipe,
            folder,
            task.teacher,
            loader,
            sets,
            format,
            data_sha256=sets.facts().sha256,
            teacher_sha256=state_sha256(teacher.model),
            device=device,
        )
    return Plan(
        recipe=recipe.name,
        method=recipe.method.name
        + (f" ({recipe.method.preset} preset)" if isinstance(recipe.method, DskdMethod) else ""),
        device=str(device),
        classes=classes,
        train_images=_count(sets.train),
        val_images=_count(sets.val),
        teacher=None
        if teacher is None or pair is None or task.teacher is None
        else model_facts(teacher.model, pair.teacher_size, teacher.weights),
        teacher_fit=recipe.teacher.chosen_fit,
        student=model_facts(student, format.input_size, "to be trained by this run"),
        taps={role: tap.facts() for role, tap in task.taps.items()},
        training_only_parameters=task.discarded(),
        steps_per_epoch=steps_per_epoch,
        steps=steps_per_epoch * recipe.train.epochs,
        memory=estimate_memory(task, format.input_size, classes, recipe),
        teacher_cache=None if cache is None else cache.plan(),
        stages=[stage.name for stage in list_stages(recipe)],
        writes={
            "weights": str(folder.weights("student")),
            "log": str(folder.log("student")),
            "checkpoints": str(folder.checkpoints("student")),
            "bundle": str(folder.bundle),
            "report": str(folder / "report.html"),
        },
    )


def _plan_teacher(
    recipe: Recipe, folder: RunFolder, sets: DataSets, student: nn.Module, format: Preprocessing
) -> TeacherModel:
    """Load the teacher; one that is still to be trained, or its classifier to be fitted, is random."""
    classes = len(sets.classes)
    if recipe.teacher.train is not None:
        return TeacherModel(*create_untrained_teacher(recipe, classes), "to be trained by this run")
    teacher = load_own_teacher(recipe, folder, sets)
    if recipe.teacher.probe is None:
        return teacher
    size = make_pair(student, format, teacher).teacher_size
    model = attach_unfitted_probe(teacher.model, size, classes, recipe.seed)
    weights = f"{teacher.weights}, classifier to be fitted by this run"
    return TeacherModel(model, teacher.format, weights)


def _count(images: ImageSet | StreamSet) -> int | None:
    return images.length if isinstance(images, StreamSet) else len(images)


def estimate_memory(
    task: MethodTask, input_size: tuple[int, int, int], classes: int, recipe: Recipe
) -> MemoryEstimate:
    """Estimate the memory of a training step from one forward pass of two images in fp32.

    Library workspaces and the overhead of the allocator are not included.
    """
    kept: dict[int, int] = {}

    def remember(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    constants = [*task.parameters(), *task.buffers()]
    weights = {tensor.untyped_storage().data_ptr() for tensor in constants}
    task.train()
    with saved_tensors_hooks(remember, lambda tensor: tensor):
        task(torch.zeros(2, *input_size), torch.tensor([0, classes - 1]))
    activations = sum(size for pointer, size in kept.items() if pointer not in weights)
    piece = recipe.train.batch_size / recipe.train.grad_accumulation
    scale = piece / 2 * (1.0 if recipe.train.precision == "fp32" else 0.5)
    trainable = sum(p.numel() for p in task.module.parameters() if p.requires_grad) * 4 / 1e6
    values = 2 if "adam" in recipe.train.optimizer or "lamb" in recipe.train.optimizer else 1
    averaged = [] if recipe.train.ema_decay is None else [*task.module.parameters(), *task.module.buffers()]
    numbers = {
        "weights_mb": sum(tensor.nbytes for tensor in (*constants, *averaged)) / 1e6,
        "gradients_mb": trainable,
        "optimizer_mb": trainable * values,
        "activations_mb": activations * scale / 1e6,
    }
    return MemoryEstimate(**numbers, total_mb=sum(numbers.values()))


def print_plan(plan: Plan, output: Output) -> None:
    """Print the plan as a table."""
    rows = [["recipe", plan.recipe], ["method", plan.method], ["device", plan.device]]
    rows.append(
        [
            "data",
            f"{plan.train_images or '?'} training and {plan.val_images or '?'} validation images, "
            f"{plan.classes} classes",
        ]
    )
    for role, model in (("teacher", plan.teacher), ("student", plan.student)):
        if model is not None:
            macs = f"{model.macs / 1e6:,.1f} M MACs" if model.macs else "MACs not countable"
            size = "x".join(map(str, model.input_size))
            rows.append([role, f"{model.name}, {model.parameters / 1e6:.2f} M parameters, {macs} at {size}"])
            if role == "teacher" and plan.teacher_fit is not None:
                rows.append(["fit of the teacher", _FITS[plan.teacher_fit]])
    for role, tap in plan.taps.items():
        grid = f", grid {tap.grid[0]}x{tap.grid[1]}" if tap.grid else ""
        rows.append([f"tap of the {role}", f"{tap.kind}, {tap.channels} channels{grid} ({tap.layout})"])
    for name, parameters in plan.training_only_parameters.items():
        rows.append([f"only in training: {name}", f"{parameters / 1e6:.2f} M parameters, discarded at the end"])
    rows.append(["steps", f"{plan.steps} ({plan.steps_per_epoch} an epoch)"])
    memory = plan.memory
    rows.append(
        [
            "memory, estimated",
            f"{memory.total_mb:,.0f} MB: weights {memory.weights_mb:,.0f}, gradients "
            f"{memory.gradients_mb:,.0f}, optimizer {memory.optimizer_mb:,.0f}, "
            f"activations {memory.activations_mb:,.0f}",
        ]
    )
    if (cache := plan.teacher_cache) is not None:
        rows.append(
            [
                "teacher cache",
                f"{format_bytes(cache.size_gb * 1e9)}: {cache.views} times {cache.images:,} images, "
                f"{cache.bytes_per_image / 1e3:,.1f} kB each; {format_bytes(cache.new_gb * 1e9)} not yet in "
                f"{cache.folder}, {format_bytes(cache.free_gb * 1e9)} free",
            ]
        )
    rows.append(["stages", " > ".join(plan.stages)])
    rows += [[f"writes {what}", where] for what, where in plan.writes.items()]
    output.table("Plan (nothing is trained or written)", ["", ""], rows)
