"""A timm name or a local checkpoint becomes a model, with what it is and costs."""

from __future__ import annotations

import copy
import difflib
import hashlib
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dskd_compress.checkpoint_layouts import (
    as_timm_names,
    classifiers_of,
    find_state,
    misfit_cure,
    misfits,
    numbers_allowed,
    trusted_hint,
    without_other_classifier,
)
from dskd_compress.config import ModelSection, TeacherSection
from dskd_compress.timm_import import import_timm
from dskd_export.documents.training import ModelFacts
from dskd_export.errors import CheckpointError, ModelError

Norm = tuple[tuple[float, ...], tuple[float, ...]]


def create_model(
    section: ModelSection,
    *,
    num_classes: int | None,
    input_size: int | None,
    on_new_classifier: Callable[[str], None] | None = None,
) -> nn.Module:
    """Create a timm classifier and load its weights.

    Args:
        section: name, weights and extra arguments.
        num_classes: width of the classifier; None keeps the model's own (1000 for most).
        input_size: square input in pixels, given to models of a fixed size (ViT, Swin); None keeps theirs.
        on_new_classifier: called with a sentence where the checkpoint's classifier does not fit and a new one
            takes its place; None refuses such a checkpoint.

    Raises:
        ModelError: timm does not know the name, refuses the arguments, or its weights cannot be had.
        CheckpointError: the local checkpoint is missing, unsafe, damaged, or of another model.
    """
    timm = import_timm()
    arguments: dict[str, Any] = dict(section.kwargs)
    if num_classes is not None:
        arguments.setdefault("num_classes", num_classes)
    if input_size is not None and _fixed_input(section.name) not in (None, input_size):
        arguments.setdefault("img_size", input_size)
    try:
        model: nn.Module = timm.create_model(section.name, pretrained=section.pretrained, **arguments)
    except (TypeError, AssertionError, ValueError) as error:
        raise ModelError(
            f"timm.create_model('{section.name}') refuses its arguments {arguments}: {error}",
            "Change kwargs or data.input_size in the recipe.",
        ) from error
    except Exception as error:
        raise _creation_error(section, error) from error
    if section.checkpoint is not None:
        load_weights(model, section.checkpoint, _size_option(section), on_new_classifier)
    return model


def _size_option(section: ModelSection) -> str:
    """The option that builds a model of fixed input for another size: a ready teacher has one that is its own."""
    ready = isinstance(section, TeacherSection) and section.train is None
    return "--set teacher.kwargs.img_size=" if ready else "--input-size "


def _fixed_input(name: str) -> int | None:
    """The height of the images that an architecture takes unless it is told another one; None: it takes any."""
    if ":" in name:  # hf-hub: the size is only known after the configuration was fetched
        return None
    config = _pretrained_cfg(name)
    return int(config.input_size[1]) if config is not None and config.fixed_input_size else None


def _pretrained_cfg(name: str) -> Any:
    """What timm knows of an architecture's weights; None where it does not know the name or its tag."""
    try:
        return import_timm().models.get_pretrained_cfg(name, allow_unregistered=True)
    except RuntimeError:  # a tag that does not exist, which `create_model` refuses with its cure
        return None


def _creation_error(section: ModelSection, error: Exception) -> ModelError:
    """Say which of the three happened: unknown name, weights that cannot be had, or something else."""
    timm = import_timm()
    name = section.name
    if ":" not in name and not timm.is_model(name.split(".")[0]):
        close = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        meant = f"Did you mean {', '.join(close)}?" if close else "See: dskd-compress models list"
        return ModelError(f"timm {timm.__version__} has no model '{name}'.", meant)
    if section.pretrained or ":" in name:
        return ModelError(
            f"The pretrained weights of '{name}' could not be loaded: {_first_line(error)}",
            "Check the network, give local weights with --teacher-checkpoint or checkpoint:, "
            "or set pretrained: false.",
        )
    return ModelError(f"timm could not create '{name}': {_first_line(error)}", "Change kwargs in the recipe.")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict without running any code from the file.

    Takes safetensors and torch files that hold only tensors, in timm's own layouts
    (`state_dict_ema`, `model_ema`, `state_dict`, `model`, or the bare dict; the EMA wins) or in one of
    `find_state`.

    Raises:
        CheckpointError: missing, damaged, holds more than tensors, or holds no state dict.
    """
    timm = import_timm()
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint.", "Check the path.")
    try:
        with (
            numbers_allowed(),
            warnings.catch_warnings(),
        ):  # torch remarks on an unusual pickle, and then refuses it
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            weights = timm.models.load_state_dict(str(path), use_ema=True, weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        if isinstance(error.__cause__, pickle.UnpicklingError) and "GLOBAL" in str(error.__cause__):
            raise CheckpointError(
                f"{path} is refused: it holds more than tensors, and loading it could run code from it.",
                trusted_hint(path),
            ) from error
        if isinstance(error, AttributeError | TypeError):
            raise CheckpointError(
                f"{path} holds no state dict.",
                "Save the model's weights: torch.save(model.state_dict(), 'weights.pth')",
            ) from error
        damaged = isinstance(error.__cause__, pickle.UnpicklingError) or not str(error).strip()
        reason = "damaged, or no torch file of tensors" if damaged else _first_line(error)
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: {reason}.",
            "Give a .safetensors file, or a torch file that holds a state dict.",
        ) from error
    return find_state(weights, path)


def load_weights(
    model: nn.Module,
    path: Path,
    size_option: str = "--input-size ",
    on_new_classifier: Callable[[str], None] | None = None,
) -> None:
    """Load a checkpoint strictly, but for a classifier that may be new.

    Args:
        model: as it is to be.
        path: its weights.
        size_option: sets the input size of a model that takes only one.
        on_new_classifier: called with a sentence where the checkpoint has no classifier of this shape; the
            model keeps its own then. None: it has to fit like the rest.

    Raises:
        CheckpointError: as `read_weights`, or the weights are of another model; names what differs.
    """
    own = model.state_dict()
    # A counter that no normalisation of timm reads; weights of before it, and rewritten ones, come without.
    counters = {name: value for name, value in own.items() if name.endswith(".num_batches_tracked")}
    weights = read_weights(path)
    resampled = None
    if misfits(own, {**counters, **weights}) and (renamed := as_timm_names(model, weights)) is not None:
        if renamed[1]:
            weights = renamed[0]
        else:
            resampled = renamed[0]
    if on_new_classifier is not None:
        weights = without_other_classifier(model, own, weights, path, on_new_classifier)
    weights = {**counters, **weights}
    if faults := misfits(own, weights):
        fits_resampled = resampled is not None and not misfits(own, {**counters, **resampled})
        raise CheckpointError(
            f"{path} does not fit {architecture(model)}: {'; '.join(faults)}.",
            misfit_cure(model, own, weights, path, size_option if fits_resampled else None),
        )
    model.load_state_dict(weights, strict=True)


def count_classes(name: str, path: Path) -> int | None:
    """Outputs of the classifier in a checkpoint of an architecture, 0 without one; None where timm names no layer.

    Raises:
        CheckpointError: as `read_weights`.
    """
    config = _pretrained_cfg(name)
    names = classifiers_of(config)
    if not names:
        return None
    weights = read_weights(path)
    for classifier in (*names, "head", "fc", "classifier"):  # the others: before timm renamed some
        if (weight := weights.get(f"{classifier}.weight")) is not None:
            return len(weight)
    return 0


def architecture(model: nn.Module) -> str:
    """timm's name of a model, its pretrained tag left out."""
    config = getattr(model, "pretrained_cfg", None) or {}
    return str(config.get("architecture") or type(model).__name__)


def recompute_activations(model: nn.Module) -> None:
    """Let a model compute its activations anew in the backward pass instead of keeping them.

    Raises:
        ModelError: timm has no gradient checkpointing for this model.
    """
    try:
        model.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError) as error:  # timm asserts that nobody asks where there is none
        raise ModelError(
            f"train.grad_checkpointing: timm has none for {architecture(model)}.",
            "Set it to false; train.grad_accumulation lowers the memory of any model.",
        ) from error


def count_parameters(module: nn.Module) -> int:
    """Number of parameters, buffers not counted."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(model: nn.Module, input_size: tuple[int, int, int]) -> int:
    """Multiply-accumulates of one forward pass of one image.

    Args:
        input_size: channels, height, width.
    """
    return sum(count_operations(model, input_size).values())


def count_operations(model: nn.Module, input_size: tuple[int, int, int]) -> dict[str, int]:
    """Multiply-accumulates of one forward pass of one image by operator, counted by torch's own counter.

    Args:
        model: on any device; its weights are not touched.
        input_size: channels, height, width.
    """
    # A copy without gradients: torch's counter fails on some attention layers whose weights want one.
    counted = copy.deepcopy(model).eval().requires_grad_(False)
    device = next(counted.parameters()).device
    # The counter has no formula for the fused attention of the CPU and takes it for free; taken apart into
    # matrix products it is counted.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        counted(torch.zeros(1, *input_size, device=device))
    by_operator = counter.get_flop_counts().get("Global", {})
    return {str(operator).removeprefix("aten."): int(flops) // 2 for operator, flops in by_operator.items()}


def model_facts(
    model: nn.Module, input_size: tuple[int, int, int], weights: str, sha256: str | None = None
) -> ModelFacts:
    """What a model is and costs, for the documents.

    Args:
        input_size: channels, height, width that the MACs are counted at.
        weights: where the weights come from, in words.
        sha256: of the weights file, where there is one.
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
    """Digest of every parameter and buffer: equal exactly when the weights are."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def has_fixed_input(model: nn.Module) -> bool:
    """Whether a model takes images of one size only (ViT, Swin and the like)."""
    return bool((getattr(model, "pretrained_cfg", None) or {}).get("fixed_input_size"))


class TeacherInput(nn.Module):
    """Images as the student sees them -> images as the teacher expects them, on the device.

    Undoes the student's normalisation and applies the teacher's (both affine, so exact up to
    rounding), and resizes where the teacher takes one fixed size that is not the student's.

    Args:
        student_norm: RGB mean and std of pixels in [0, 1], that the images have been given.
        teacher_norm: those that the teacher was trained with.
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
        """BxCxHxW in the student's normalisation -> BxCxH'xW' in the teacher's."""
        if not self.same:
            images_BCHW = images_BCHW * self.scale + self.shift
        if self.size is not None:
            images_BCHW = F.interpolate(
                images_BCHW, self.size, mode="bicubic", align_corners=False, antialias=True
            )
        return images_BCHW
