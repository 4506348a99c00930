"""Cross-entropy only: a model without a teacher, all of it or its classifier alone."""

from __future__ import annotations

from torch import Tensor, nn

from dskd_compress.methods.base import Losses, StepContext, StudentModule
from dskd_compress.pretrained import architecture
from dskd_export.errors import ModelError


class CrossEntropyModule(StudentModule):
    """L = CE(student, label)."""

    def forward(self, images_BCHW: Tensor, target: Tensor, teacher: None, context: StepContext) -> Losses:
        """Compute the loss of a batch."""
        logits_BK = self.student(images_BCHW)
        return Losses(logits_BK, {"ce": self.cross_entropy(logits_BK, target)}, {})


class ClassifierModule(CrossEntropyModule):
    """The same loss for the classifier alone: everything before it is frozen, in eval mode and in no graph.

    Args:
        student: its parameters outside of the classifier are frozen in place.

    Raises:
        ModelError: timm names no classifier of it.
    """

    def __init__(self, student: nn.Module, label_smoothing: float) -> None:
        super().__init__(student, label_smoothing)
        student.requires_grad_(False)
        for layer in find_classifier(student):
            layer.requires_grad_(True)

    def train(self, mode: bool = True) -> ClassifierModule:
        """Set the mode of the classifier; the rest stays in eval mode: dropout off, statistics untouched."""
        super().train(mode)
        trained = {part for layer in find_classifier(self.student) for part in layer.modules()}
        for module in self.student.modules():
            module.training = module.training and module in trained
        return self


def find_classifier(model: nn.Module) -> list[nn.Module]:
    """Find the layers of a timm model that give its logits: one, or two of a distilled transformer.

    Raises:
        ModelError: there is none with weights.
    """
    found = model.get_classifier() if hasattr(model, "get_classifier") else None  # type: ignore[operator]
    parts = found if isinstance(found, (tuple, list, nn.ModuleList)) else [found]
    layers = [part for part in parts if isinstance(part, nn.Module) and any(True for _ in part.parameters())]
    if not layers:
        raise ModelError(
            f"{architecture(model)} has no classifier that can be trained alone.",
            "Train all of it: --set teacher.fit=all",
        )
    return layers
