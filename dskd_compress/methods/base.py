"""What all methods share: the frozen teacher, the trainable module, and the task around them.

A method is a `timm.task.TrainingTask`. Everything that is trained lies in one module whose forward
returns the losses (`trainable_module`), so distributed training wraps a single module. The student
in it is a plain timm model. The training-only heads next to it are task state, never part of its weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dskd_compress.config import DistMethod, DkdMethod, KdMethod
from dskd_compress.methods.noise import StepNoise
from dskd_compress.models import TeacherInput
from dskd_compress.taps import Tap, TapHead
from dskd_compress.timm_import import import_timm

import_timm()  # before anything of timm: it may need torchvision to be mended first

from timm.task import TrainingTask  # noqa: E402
from timm.utils import unwrap_model  # noqa: E402

Position = tuple[int, int]
"""Epoch and number of the batch in it, 0-based."""


@dataclass(frozen=True)
class StepContext:
    """What a forward pass may depend on next to its images: where in the training it stands.

    Attributes:
        rows: rows of the whole batch that the images at hand are; a process or a micro-batch has some of them
            only. None: all of them.
    """

    step: int = 0  # number of the update, 0-based
    progress: float = 0.0  # finished part of the training, 0 to 1
    position: Position | None = None  # epoch and batch; None outside of a training
    rows: tuple[int, ...] | None = None
    seed: int | None = None  # of the step's noise; None draws from torch's own generator
    wants_monitors: bool = True  # whether monitors are computed that cost something

    def noise(self) -> StepNoise:
        """Open the noise of this step at its first draw."""
        return StepNoise(self.seed, self.rows or ())


OUTSIDE = StepContext()
"""The context of a batch outside of a training."""


@dataclass(frozen=True)
class TeacherOutput:
    """Outputs of the teacher for a batch. The tap's are None where the method does not read it."""

    logits_BK: Tensor
    feat: Tensor | None = None
    prefix_BPC: Tensor | None = None

    @property
    def tapped(self) -> Tensor:
        """F_t, the feature at the tap, for a method that reads it."""
        assert self.feat is not None, "this teacher has no tap"
        return self.feat


class Teacher(nn.Module):
    """A frozen teacher: always in eval mode, never in a graph."""

    def __init__(self, model: nn.Module, adapt: TeacherInput, tap: Tap | None = None, head: TapHead | None = None):
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.adapt = adapt
        self.tap = tap
        self.head = head

    def train(self, mode: bool = True) -> Teacher:
        """Stay in eval mode: dropout off, batch statistics untouched."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images_BCHW: Tensor) -> TeacherOutput:
        """Images in the student's normalisation -> logits and, where there is one, the tap, in fp32."""
        images_BCHW = self.adapt(images_BCHW)
        if self.tap is None:
            return TeacherOutput(self.model(images_BCHW).float())
        features = self.model.forward_features(images_BCHW)  # type: ignore[operator]
        feat, prefix_BPC = self.tap.read(self.model, features)
        logits_BK = self.model.forward_head(features)  # type: ignore[operator]
        return TeacherOutput(logits_BK.float(), feat.float(), None if prefix_BPC is None else prefix_BPC.float())

    def at(
        self, images_BCHW: Tensor, position: Position | None, rows: Sequence[int] | None = None
    ) -> TeacherOutput:
        """Compute the output for images of a training step; `position` and `rows` as in `StepContext`."""
        output: TeacherOutput = self(images_BCHW)
        return output


@dataclass
class Losses:
    """Result of a trainable module: weighted terms that add up to the loss, and diagnostics."""

    logits_BK: Tensor
    terms: dict[str, Tensor]
    monitors: dict[str, Tensor]


def get_labels(target: Tensor) -> Tensor:
    """Convert class indices [B], or a mixed BxK distribution, to class indices [B] of the likeliest class."""
    return target if target.ndim == 1 else target.argmax(dim=1)


def ramp(progress: float, fraction: float) -> float:
    """Compute the weight of the distillation: it rises linearly to 1 over a first `fraction` of the training."""
    return min(1.0, progress / fraction) if fraction > 0 else 1.0


def monitor_agreement(logits_BK: Tensor, teacher: TeacherOutput) -> dict[str, Tensor]:
    """Monitor the part of the images on which student and teacher predict the same class."""
    same_B = logits_BK.argmax(dim=1) == teacher.logits_BK.argmax(dim=1)
    return {"student_agrees_with_teacher": same_B.float().mean()}


MONITOR_EVERY = 10
"""Steps between two computations of the costly monitors."""


class StudentModule(nn.Module):
    """A student with its training-only heads.

    A method's `forward(images_BCHW, target, teacher, context) -> Losses` takes the teacher's output; that of
    plain cross-entropy takes None.

    Attributes:
        head_terms: loss terms that train only the heads, by design. Any other term that
            gives the student no gradient is a fault (see `dskd_compress.training.diagnosis`).
    """

    head_terms: frozenset[str] = frozenset()

    def __init__(self, student: nn.Module, label_smoothing: float) -> None:
        super().__init__()
        self.student = student
        self.label_smoothing = label_smoothing
        self.batch_norm_is_frozen = False

    def freeze_batch_norm(self) -> None:
        """Freeze the batch norms of the student: running statistics, scale and shift. Those of heads train on."""
        self.batch_norm_is_frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> StudentModule:
        """Set the mode; frozen batch norms stay in eval mode."""
        super().train(mode)
        for module in self.student.modules() if self.batch_norm_is_frozen else ():
            if isinstance(module, _BatchNorm):
                module.eval().requires_grad_(False)
        return self

    def cross_entropy(self, logits_BK: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy with class indices [B] or mixed targets BxK, in fp32, mean over the batch."""
        return F.cross_entropy(logits_BK.float(), target, label_smoothing=self.label_smoothing)

    def no_weight_decay(self) -> set[str]:
        """List what the student excludes from weight decay, by its names here; timm's optimizers call it."""
        names: set[str] = getattr(self.student, "no_weight_decay", set)()
        return {f"student.{name}" for name in names}

    def fit(self, feats: Iterable[Tensor]) -> None:
        """Set constants from the teacher's features of some training images. Most methods have none."""


class LogitModule(StudentModule, ABC):
    """A student that learns from labels and the teacher's logits: L = ce_weight CE + distillation."""

    def __init__(
        self, student: nn.Module, method: KdMethod | DkdMethod | DistMethod, label_smoothing: float
    ) -> None:
        super().__init__(student, label_smoothing)
        self.method: Any = method

    @abstractmethod
    def distil(self, student_BK: Tensor, teacher_BK: Tensor, target: Tensor, progress: float) -> Tensor:
        """Compute the weighted distillation term."""

    def forward(self, images_BCHW: Tensor, target: Tensor, teacher: TeacherOutput, context: StepContext) -> Losses:
        """Compute the losses of a batch."""
        logits_BK = self.student(images_BCHW)
        terms = {
            "ce": self.method.ce_weight * self.cross_entropy(logits_BK, target),
            self.method.name: self.distil(logits_BK, teacher.logits_BK, target, context.progress),
        }
        return Losses(logits_BK, terms, monitor_agreement(logits_BK, teacher))


class MethodTask(TrainingTask):
    """The teacher and a trainable module, as timm's training loop expects a task.

    Args:
        teacher: None for plain cross-entropy.
        student_tap: where the student is read; None for a method that reads logits only.
    """

    def __init__(
        self, module: StudentModule, teacher: Teacher | None, device: torch.device, student_tap: Tap | None = None
    ) -> None:
        super().__init__(device=device, verbose=False)
        self.trainable_module: nn.Module = module
        self.teacher, self.student_tap = teacher, student_tap
        self.to(device)

    def prepare_distributed(self, device_ids: list[int] | None = None, **ddp_kwargs: Any) -> MethodTask:
        """Wrap the trainable module for torchrun; the frozen teacher stays unwrapped."""
        from torch.nn.parallel import DistributedDataParallel

        self.trainable_module = DistributedDataParallel(self.trainable_module, device_ids=device_ids, **ddp_kwargs)
        return self

    def compile(self, backend: str = "inductor", mode: str | None = None, **options: Any) -> nn.Module:
        """Compile the trainable module, before it is wrapped for torchrun; the bare student stays as it is."""
        compiled: Any = torch.compile(self.trainable_module, backend=backend, mode=mode, **options)
        self.trainable_module = compiled
        return self.trainable_module

    @property
    def compiled(self) -> bool:
        """Whether the trainable module was compiled."""
        bare = getattr(self.trainable_module, "module", self.trainable_module)  # within DistributedDataParallel
        return hasattr(bare, "_orig_mod")

    @property
    def module(self) -> StudentModule:
        """The trainable module without the wrappers of distributed or compiled training."""
        return unwrap_model(self.trainable_module)  # type: ignore[no-any-return]

    def get_eval_model(self, module: nn.Module | None = None, ema: bool = False) -> nn.Module:
        """The bare student."""
        holder = unwrap_model(module if module is not None else self.get_trainable_module(ema=ema))
        return holder.student  # type: ignore[no-any-return]

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, Tensor]:
        """State of the training-only heads, which a resumed run needs and a student does not."""
        holder = unwrap_model(module if module is not None else self.get_trainable_module(ema=ema))
        return {name: value for name, value in holder.state_dict().items() if not name.startswith("student.")}

    def load_task_state(
        self,
        state: dict[str, Tensor] | None,
        strict: bool = True,
        module: nn.Module | None = None,
        ema: bool = False,
    ) -> None:
        """Load what `get_task_state` gave."""
        holder = unwrap_model(module if module is not None else self.get_trainable_module(ema=ema))
        student = {f"student.{name}": value for name, value in holder.student.state_dict().items()}
        holder.load_state_dict({**student, **(state or {})}, strict=strict)

    @torch.no_grad()
    def fit_statistics(self, batches: Iterable[Tensor]) -> None:
        """Set the method's constants from some training images, before the first step."""
        if self.teacher is not None and self.teacher.tap is not None:
            teacher = self.teacher
            self.module.fit(teacher(images_BCHW).tapped for images_BCHW in batches)

    @property
    def taps(self) -> dict[str, Tap]:
        """Where `teacher` and `student` are read; empty for a method that reads logits only."""
        taps = {"teacher": None if self.teacher is None else self.teacher.tap, "student": self.student_tap}
        return {role: tap for role, tap in taps.items() if tap is not None}

    def discarded(self) -> dict[str, int]:
        """Count the parameters of the training-only modules, which the exported student does not have."""
        return {
            name: count
            for name, child in self.module.named_children()
            if name != "student" and (count := sum(parameter.numel() for parameter in child.parameters()))
        }

    def forward(self, input: Tensor, target: Tensor, context: StepContext = OUTSIDE) -> dict[str, Any]:
        """Images BxCxHxW and targets -> `loss`, `output` (logits), `terms`, `monitors`, `teacher` (its output)."""
        teacher = None if self.teacher is None else self.teacher.at(input, context.position, context.rows)
        losses = self.trainable_module(input, target, teacher, context)
        loss = torch.stack(list(losses.terms.values())).sum()
        return {
            "loss": loss,
            "output": losses.logits_BK,
            "terms": losses.terms,
            "monitors": losses.monitors,
            "teacher": teacher,
        }
