"""What all methods share: the frozen teacher, the trainable module, and the task around them.

A method is a `timm.task.TrainingTask`. Everything that is trained lies in one module whose forward
returns the losses (`trainable_module`), so that distributed training wraps one thing; the student
in it is a plain timm model, and the heads beside it are task state, never part of its weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dskd_compress.methods.draws import Draws
from dskd_compress.models import TeacherInput
from dskd_compress.taps import Tap, TapHead
from dskd_compress.timm_import import import_timm

import_timm()  # before anything of timm: it may need torchvision to be mended first

from timm.task import TrainingTask  # noqa: E402
from timm.utils import unwrap_model  # noqa: E402

Position = tuple[int, int]
"""Where a step stands in the training: epoch and number of the batch in it, 0-based."""


@dataclass(frozen=True)
class TeacherOutput:
    """What the teacher says of a batch. The tap is None where the method does not read it."""

    logits_BK: Tensor
    feat: Tensor | None = None
    prefix_BPC: Tensor | None = None


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
        """The output for images of a training step.

        Args:
            images_BCHW: as in `forward`.
            position: of their batch; None is a batch outside of the training.
            rows: their places in that batch; None: they are all of it.
        """
        output: TeacherOutput = self(images_BCHW)
        return output


@dataclass
class Losses:
    """Result of a trainable module: weighted terms that add up to the loss, and diagnostics."""

    logits_BK: Tensor
    terms: dict[str, Tensor]
    monitors: dict[str, Tensor]


def labels_of(target: Tensor) -> Tensor:
    """Class indices [B], or a mixed BxK distribution -> its likeliest class, [B]."""
    return target if target.ndim == 1 else target.argmax(dim=1)


def ramp(progress: float, fraction: float) -> float:
    """Weight of the distillation, 0 to 1: rises linearly over the first `fraction` of the training."""
    return min(1.0, progress / fraction) if fraction > 0 else 1.0


def agreement(logits_BK: Tensor, teacher: TeacherOutput) -> dict[str, Tensor]:
    """Monitor: share of images on which student and teacher say the same class."""
    same_B = logits_BK.argmax(dim=1) == teacher.logits_BK.argmax(dim=1)
    return {"student_agrees_with_teacher": same_B.float().mean()}


WATCH_EVERY = 10
"""Steps from one look at the costly monitors to the next."""


class StudentModule(nn.Module):
    """A student with whatever is trained beside it; forward gives the losses.

    Attributes:
        draws: where forward gets its random numbers from.
        head_terms: loss terms that train only what is beside the student, by design. Any other term that
            gives the student no gradient is a fault (see `dskd_compress.training.diagnosis`).
        watching: whether this step's monitors are wanted, where they cost something; the training loop
            sets it for every tenth step.
    """

    head_terms: frozenset[str] = frozenset()

    def __init__(self, student: nn.Module, label_smoothing: float) -> None:
        super().__init__()
        self.student = student
        self.label_smoothing = label_smoothing
        self.draws = Draws()
        self.watching = True

    def cross_entropy(self, logits_BK: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy with class indices [B] or mixed targets BxK, in fp32, mean over the batch."""
        return F.cross_entropy(logits_BK.float(), target, label_smoothing=self.label_smoothing)

    def no_weight_decay(self) -> set[str]:
        """The student's own list, with the names it has here (timm's optimizers ask for it)."""
        names: set[str] = getattr(self.student, "no_weight_decay", set)()
        return {f"student.{name}" for name in names}

    def forward(
        self, images_BCHW: Tensor, target: Tensor, teacher: TeacherOutput | None, progress: float
    ) -> Losses:
        """Losses of a batch; `progress` is the share of the training that is done, 0 to 1."""
        raise TypeError("a method overrides forward")


class MethodTask(TrainingTask):
    """The teacher and a trainable module, as timm's training loop expects a task.

    Args:
        module: student and training-only heads.
        teacher: None for a method that has none.

    Attributes:
        progress: share of the training that is done, 0 to 1; set before each step.
        position: epoch and number of the batch in it, 0-based; set before each step, None without a training.
        rows: places in that batch of the images that the task is called with: a process or a piece of a step
            has some of them only; None without a training.
    """

    def __init__(self, module: StudentModule, teacher: Teacher | None, device: torch.device) -> None:
        super().__init__(device=device, verbose=False)
        self.trainable_module: nn.Module = module
        self.teacher = teacher
        self.progress = 0.0
        self.position: Position | None = None
        self.rows: list[int] | None = None
        self.to(device)

    def train(self, mode: bool = True) -> MethodTask:
        """Set the mode of the trainable module; the teacher stays in eval mode by itself."""
        super().train(mode)
        return self

    def prepare_distributed(self, device_ids: list[int] | None = None, **ddp_kwargs: Any) -> MethodTask:
        """Wrap the trainable module for torchrun; the frozen teacher stays as it is."""
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

    def fit_statistics(self, batches: Iterable[Tensor]) -> None:
        """Look at some training images before the first step. Most methods need nothing of them."""

    @property
    def taps(self) -> dict[str, Tap]:
        """Where `teacher` and `student` are read; empty for a method that reads logits only."""
        return {}

    def discarded(self) -> dict[str, int]:
        """Training-only modules and their parameter counts: what the exported student does not have."""
        return {
            name: count
            for name, child in self.module.named_children()
            if name != "student" and (count := sum(parameter.numel() for parameter in child.parameters()))
        }

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Any]:
        """Images BxCxHxW and targets -> `loss`, `output` (logits), `terms`, `monitors`, `teacher` (its output)."""
        teacher = self.teacher.at(input, self.position, self.rows) if self.teacher is not None else None
        losses = self.trainable_module(input, target, teacher, self.progress)
        loss = torch.stack(list(losses.terms.values())).sum()
        return {
            "loss": loss,
            "output": losses.logits_BK,
            "terms": losses.terms,
            "monitors": losses.monitors,
            "teacher": teacher,
        }
