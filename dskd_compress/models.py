"""Create timm models, load their weights, and measure what they cost."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dskd_compress.checkpoints import load_weights
from dskd_compress.config import ModelSection, TeacherSection
from dskd_compress.model_names import Role, check_name
from dskd_compress.pretrained import architecture, find_fixed_input, quiet_hub, read_first_line, use_local_files
from dskd_compress.timm_import import import_timm
from dskd_export.documents.training import ModelFacts
from dskd_export.errors import ModelError

Norm = tuple[tuple[float, ...], tuple[float, ...]]


def create_model(
    section: ModelSection,
    *,
    num_classes: int | None,
    input_size: int | None,
    on_new_classifier: Callable[[str], None] | None = None,
    on_change: Callable[[str], None] | None = None,
) -> nn.Module:
    """Create a timm classifier and load its weights.

    Args:
        num_classes: width of the classifier; None keeps the model's own (1000 for most).
        input_size: square input in pixels for models of a fixed size (ViT, Swin); None keeps theirs.
        on_new_classifier: called with a sentence if the checkpoint's classifier does not fit and a new one
            replaces it; None refuses such a checkpoint.
        on_change: as for `load_weights`.

    Raises:
        ModelError: unknown name, wrong arguments, or weights that cannot be loaded.
        CheckpointError: the local checkpoint is missing, unsafe, damaged, or of another model.
    """
    timm = import_timm()
    check_name(section.name, role_of(section))
    arguments: dict[str, Any] = dict(section.kwargs)
    if num_classes is not None:
        arguments.setdefault("num_classes", num_classes)
    if input_size is not None and find_fixed_input(section.name) not in (None, input_size):
        arguments.setdefault("img_size", input_size)
    if section.pretrained == "auto":
        raise ValueError("student.pretrained: auto is decided before the model is created")
    try:
        name, given = use_local_files(section.name, arguments, weights=section.pretrained)
        with quiet_hub():
            model: nn.Module = timm.create_model(name, pretrained=section.pretrained, **given)
    except (TypeError, AssertionError, ValueError) as error:
        raise ModelError(
            f"timm.create_model('{section.name}') does not accept {arguments}: {error}",
            "Change kwargs or data.input_size in the recipe.",
        ) from error
    except Exception as error:
        raise _explain_creation_error(section, error) from error
    if section.checkpoint is not None:
        load_weights(model, section.checkpoint, on_new_classifier, on_change)
    return model


def role_of(section: ModelSection) -> Role:
    """Tell whose section it is, for flags in hints."""
    return "teacher" if isinstance(section, TeacherSection) else "student"


def _explain_creation_error(section: ModelSection, error: Exception) -> ModelError:
    """Explain why a model could not be created: missing weights, or another error."""
    name = section.name
    if section.pretrained or ":" in name:
        role = role_of(section)
        ready = isinstance(section, TeacherSection) and section.train is None
        hint = f"Give local weights with --{role}-checkpoint FILE"
        return ModelError(
            f"The pretrained weights of '{name}' could not be loaded: {read_first_line(error)}",
            f"{hint}, or check the network."
            if ready or ":" in name
            else f"{hint}, or start from random ones with --set {role}.pretrained=false",
        )
    return ModelError(f"timm could not create '{name}': {read_first_line(error)}", "Change kwargs in the recipe.")


def has_pretrained_weights(name: str) -> bool:
    """Whether pretrained weights of a model are known: of timm, or the Hub's own."""
    return ":" in name or bool(import_timm().is_model_pretrained(name.split(".")[0]))


def recompute_activations(model: nn.Module) -> None:
    """Make a model recompute its activations in the backward pass.

    Raises:
        ModelError: timm has no gradient checkpointing for this model.
    """
    try:
        model.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError) as error:  # timm asserts where it is not supported
        raise ModelError(
            f"train.grad_checkpointing: timm does not support it for {architecture(model)}.",
            "--set train.grad_checkpointing=false; train.grad_accumulation lowers the memory of any model.",
        ) from error


def count_parameters(module: nn.Module) -> int:
    """Count the parameters, without buffers."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(model: nn.Module, input_size: tuple[int, int, int]) -> int:
    """Count the multiply-accumulates of a forward pass of one image.

    Args:
        input_size: channels, height, width.
    """
    return sum(count_operations(model, input_size).values())


def count_operations(model: nn.Module, input_size: tuple[int, int, int]) -> dict[str, int]:
    """Count the multiply-accumulates of a forward pass of one image by operator, with torch's counter.

    Args:
        model: on any device; it is not changed.
        input_size: channels, height, width.
    """
    # A copy without gradients: torch's counter fails on some attention layers whose weights require them.
    counted = copy.deepcopy(model).eval().requires_grad_(False)
    device = next(counted.parameters()).device
    # The counter has no formula for the fused attention of the CPU and counts 0; as matrix products it is counted.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        counted(torch.zeros(1, *input_size, device=device))
    by_operator = counter.get_flop_counts().get("Global", {})
    return {str(operator).removeprefix("aten."): int(flops) // 2 for operator, flops in by_operator.items()}


def model_facts(
    model: nn.Module, input_size: tuple[int, int, int], weights: str, sha256: str | None = None
) -> ModelFacts:
    """Describe a model and its cost for the documents.

    Args:
        input_size: channels, height, width for the MACs.
        weights: source of the weights, in words.
        sha256: of the weights file, if any.
    """
    tensors = model.state_dict().values()
    return ModelFacts(
        name=architecture(model),
        parameters=count_parameters(model),
        macs=count_macs(model, input_size),
        size_mb=sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6,
        input_size=input_size,
        weights=weights,
        sha256=sha256,
    )


def state_sha256(model: nn.Module) -> str:
    """Hash every parameter and buffer."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def has_fixed_input(model: nn.Module) -> bool:
    """Whether a model takes images of one size only, such as ViT and Swin."""
    return bool((getattr(model, "pretrained_cfg", None) or {}).get("fixed_input_size"))


class TeacherInput(nn.Module):
    """Converts images of the student into images of the teacher, on the device.

    Replaces the student's normalisation by the teacher's (both affine, so exact up to rounding), and resizes
    for a teacher of another fixed size.

    Args:
        student_norm: RGB mean and std of pixels in [0, 1], applied to the images.
        teacher_norm: those of the teacher's training.
        size: height and width to resize to; None keeps the student's.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, student_norm: Norm, teacher_norm: Norm, size: tuple[int, int] | None) -> None:
        super().__init__()
        (student_mean, student_std), (mean, std) = (
            (torch.tensor(norm[0]), torch.tensor(norm[1])) for norm in (student_norm, teacher_norm)
        )
        self.size = size
        self.same = bool(torch.equal(student_mean, mean) and torch.equal(student_std, std))
        self.register_buffer("scale", (student_std / std).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", ((student_mean - mean) / std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Convert BxCxHxW in the student's normalisation to BxCxH'xW' in the teacher's."""
        if not self.same:
            images_BCHW = images_BCHW * self.scale + self.shift
        if self.size is not None:
            images_BCHW = F.interpolate(
                images_BCHW, self.size, mode="bicubic", align_corners=False, antialias=True
            )
        return images_BCHW
