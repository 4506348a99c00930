"""One step of training, as the training loop takes it between two batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dskd_compress.config import DiffKdMethod, DskdMethod, KdMethod, Method, TrainSection
from dskd_compress.data import Preprocessing
from dskd_compress.methods import Pair, create_task
from dskd_compress.methods.base import MONITOR_EVERY, StepContext
from dskd_compress.timm_import import import_timm
from dskd_compress.training.optim import create_optimization

CLASSES = 100


@dataclass(frozen=True)
class Setting:
    """A pair of models and how it is trained."""

    teacher: str
    student: str
    size: int
    batch: int
    device: str
    precision: str
    channels_last: bool


def list_methods(setting: Setting) -> dict[str, Method | None]:
    """List the methods to compare on a pair; None is the floor. DiffKD as published, features and logits."""
    methods: dict[str, Method | None] = {"floor": None, "kd": KdMethod()}
    # The head of a class token does not read the map: such a teacher guides on the vector tap only.
    for tap in ["vector"] if "vit" in setting.teacher else ["vector", "map"]:
        methods[f"dskd_{tap}"] = DskdMethod.model_validate({"tap": tap})
        methods[f"diffkd_{tap}"] = DiffKdMethod.model_validate({"tap": tap})
    return methods


def make_step(method: Method | None, setting: Setting) -> Callable[[], None]:
    """Make the training step of a method; None is the floor."""
    timm = import_timm()
    torch.manual_seed(0)
    device, size = torch.device(setting.device), setting.size
    models = [
        timm.create_model(name, num_classes=CLASSES, **({"img_size": size} if "vit" in name else {}))
        for name in (setting.student, setting.teacher)
    ]
    format = Preprocessing((3, size, size), (0.5,) * 3, (0.5,) * 3, "bicubic", 1.0, "center")
    layout = torch.channels_last if setting.channels_last else torch.contiguous_format
    images = torch.randn(setting.batch, 3, size, size, device=device).contiguous(memory_format=layout)
    labels = torch.randint(CLASSES, (setting.batch,), device=device)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None}[setting.precision]

    def autocast() -> torch.autocast:
        return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)

    if method is None:
        student, teacher = (model.to(device=device, memory_format=layout) for model in models)
        teacher.eval()

        def floor() -> None:
            with autocast():
                with torch.no_grad():
                    teacher(images)
                loss = nn.functional.cross_entropy(student(images).float(), labels)
            student.zero_grad(set_to_none=True)
            loss.backward()

        return floor
    pair = Pair(models[0], format, models[1], format)
    task = create_task(method, models[0], pair, label_smoothing=0.0, seed=0, device=device)
    task.to(memory_format=layout)
    task.fit_statistics([images])
    task.train()
    optimization = create_optimization(task.module, TrainSection(lr=1e-3), 100)
    count = 0

    def step() -> None:
        nonlocal count
        context = StepContext(progress=0.5, wants_monitors=count % MONITOR_EVERY == 0)
        count += 1
        with autocast():
            result = task(images, labels, context)
        optimization.optimizer.zero_grad(set_to_none=True)
        loss: Tensor = result["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(task.module.parameters(), 5.0)
        optimization.optimizer.step()

    return step
