"""Create timm models, load their weights, and measure what they cost."""

from __future__ import annotations

import copy
import difflib
import hashlib
import logging
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dskd_compress.checkpoint_layouts import (
    allow_numpy_numbers,
    explain_misfit,
    find_misfits,
    find_state,
    format_trusted_hint,
    list_classifiers,
    rename_for_timm,
    replace_other_classifier,
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
        num_classes: width of the classifier; None keeps the model's own (1000 for most).
        input_size: square input in pixels for models of a fixed size (ViT, Swin); None keeps theirs.
        on_new_classifier: called with a sentence if the checkpoint's classifier does not fit and a new one
            replaces it; None refuses such a checkpoint.

    Raises:
        ModelError: unknown name, wrong arguments, or weights that cannot be loaded.
        CheckpointError: the local checkpoint is missing, unsafe, damaged, or of another model.
    """
    timm = import_timm()
    arguments: dict[str, Any] = dict(section.kwargs)
    if num_classes is not None:
        arguments.setdefault("num_classes", num_classes)
    if input_size is not None and _find_fixed_input(section.name) not in (None, input_size):
        arguments.setdefault("img_size", input_size)
    try:
        with _quiet_hub():
            model: nn.Module = timm.create_model(section.name, pretrained=section.pretrained, **arguments)
    except (TypeError, AssertionError, ValueError) as error:
        raise ModelError(
            f"timm.create_model('{section.name}') does not accept {arguments}: {error}",
            "Change kwargs or data.input_size in the recipe.",
        ) from error
    except Exception as error:
        raise _explain_creation_error(section, error) from error
    if section.checkpoint is not None:
        load_weights(model, section.checkpoint, _find_size_option(section), on_new_classifier)
    return model


def _find_size_option(section: ModelSection) -> str:
    """Find the option that sets the input size; that of a ready teacher is separate."""
    ready = isinstance(section, TeacherSection) and section.train is None
    return "--set teacher.kwargs.img_size=" if ready else "--input-size "


def _find_fixed_input(name: str) -> int | None:
    """Find the default image height of an architecture of fixed input; None: it takes any size."""
    if ":" in name:  # hf-hub: known only after the configuration is fetched
        return None
    config = _find_pretrained_cfg(name)
    return int(config.input_size[1]) if config is not None and config.fixed_input_size else None


def _find_pretrained_cfg(name: str) -> Any:
    """Find timm's configuration of an architecture's weights; None: unknown name or tag."""
    try:
        return import_timm().models.get_pretrained_cfg(name, allow_unregistered=True)
    except RuntimeError:  # an unknown tag, which `create_model` reports
        return None


def _explain_creation_error(section: ModelSection, error: Exception) -> ModelError:
    """Explain why a model could not be created: unknown name, missing weights, or another error."""
    timm = import_timm()
    name = section.name
    if ":" not in name and not timm.is_model(name.split(".")[0]):
        return ModelError(f"timm {timm.__version__} has no model '{name}'.", advise_name(name))
    if section.pretrained or ":" in name:
        role = "teacher" if isinstance(section, TeacherSection) else "student"
        option = "--teacher-checkpoint FILE" if role == "teacher" else "--set student.checkpoint=FILE"
        return ModelError(
            f"The pretrained weights of '{name}' could not be loaded: {_read_first_line(error)}",
            f"Check the network, give local weights with {option}, or add --set {role}.pretrained=false",
        )
    return ModelError(f"timm could not create '{name}': {_read_first_line(error)}", "Change kwargs in the recipe.")


def advise_name(name: str) -> str:
    """Write the hint for a name that timm has not: the closest names, else the command that lists all."""
    close = difflib.get_close_matches(name, import_timm().list_models(), n=3, cutoff=0.5)
    return f"Did you mean {', '.join(close)}?" if close else "See: dskd-compress models list"


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Keep the hub's log of failed requests off the terminal: the error that follows explains them."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _read_first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict without running any code from the file.

    Takes safetensors and torch files of tensors only, in timm's layouts (`state_dict_ema`, `model_ema`,
    `state_dict`, `model`, or the bare dict; the EMA takes precedence) or those of `find_state`.

    Raises:
        CheckpointError: missing, damaged, holds more than tensors, or holds no state dict.
    """
    timm = import_timm()
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint.", "Check the path.")
    try:
        with (
            allow_numpy_numbers(),
            warnings.catch_warnings(),
        ):  # torch warns of an unusual pickle, and then refuses it
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            weights = timm.models.load_state_dict(str(path), use_ema=True, weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        if isinstance(error.__cause__, pickle.UnpicklingError) and "GLOBAL" in str(error.__cause__):
            raise CheckpointError(
                f"{path} holds more than tensors; loading it could run code from it.",
                format_trusted_hint(path),
            ) from error
        if isinstance(error, AttributeError | TypeError):
            raise CheckpointError(
                f"{path} holds no state dict.",
                "Save the model's weights: torch.save(model.state_dict(), 'weights.pth')",
            ) from error
        damaged = isinstance(error.__cause__, pickle.UnpicklingError) or not str(error).strip()
        reason = "damaged, or no torch file of tensors" if damaged else _read_first_line(error)
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: {reason}.",
            "Give a .safetensors file, or a torch file of a state dict.",
        ) from error
    return find_state(weights, path)


def load_weights(
    model: nn.Module,
    path: Path,
    size_option: str = "--input-size ",
    on_new_classifier: Callable[[str], None] | None = None,
) -> None:
    """Load a checkpoint strictly, except for a new classifier.

    Args:
        size_option: sets the input size of a model of fixed size.
        on_new_classifier: called with a sentence if the checkpoint has no classifier of this shape, and the
            model keeps its own. None: the classifier must fit.

    Raises:
        CheckpointError: as `read_weights`, or the weights are of another model; names the differences.
    """
    own = model.state_dict()
    # No normalisation of timm reads this counter; old and converted weights lack it.
    counters = {name: value for name, value in own.items() if name.endswith(".num_batches_tracked")}
    weights = read_weights(path)
    resampled = None
    if find_misfits(own, {**counters, **weights}) and (renamed := rename_for_timm(model, weights)) is not None:
        if renamed[1]:
            weights = renamed[0]
        else:
            resampled = renamed[0]
    if on_new_classifier is not None:
        weights = replace_other_classifier(model, own, weights, path, on_new_classifier)
    weights = {**counters, **weights}
    if faults := find_misfits(own, weights):
        fits_resampled = resampled is not None and not find_misfits(own, {**counters, **resampled})
        raise CheckpointError(
            f"{path} does not fit {architecture(model)}: {'; '.join(faults)}.",
            explain_misfit(model, own, weights, path, size_option if fits_resampled else None),
        )
    model.load_state_dict(weights, strict=True)


def count_classes(name: str, path: Path) -> int | None:
    """Count the classes of a checkpoint, 0 without a classifier; None: timm names no classifier layer.

    Raises:
        CheckpointError: as `read_weights`.
    """
    config = _find_pretrained_cfg(name)
    names = list_classifiers(config)
    if not names:
        return None
    weights = read_weights(path)
    for classifier in (*names, "head", "fc", "classifier"):  # the last three: names of old timm releases
        if (weight := weights.get(f"{classifier}.weight")) is not None:
            return len(weight)
    return 0


def architecture(model: nn.Module) -> str:
    """Get timm's name of a model, without its pretrained tag."""
    config = getattr(model, "pretrained_cfg", None) or {}
    return str(config.get("architecture") or type(model).__name__)


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


def has_pretrained_weights(name: str) -> bool:
    """Whether pretrained weights of a model are known: of timm, or the Hub's own."""
    return ":" in name or bool(import_timm().is_model_pretrained(name.split(".")[0]))


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
