"""Read checkpoints of any trainer without running code from them, and load them into timm models."""

from __future__ import annotations

import argparse
import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dskd_compress.checkpoint_layouts import (
    allow_numpy_numbers,
    convert_for_timm,
    explain_misfit,
    find_misfits,
    find_state,
    find_trained_size,
    format_trusted_hint,
    list_classifiers,
    replace_other_classifier,
)
from dskd_compress.config import ModelSection
from dskd_compress.pretrained import architecture, find_fixed_input, find_pretrained_cfg, read_first_line
from dskd_compress.timm_import import import_timm
from dskd_export.errors import CheckpointError

# In timm's own order: the moving average first, where the training kept one.
_EMA = ("state_dict_ema", "model_ema")


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint that a model needs.

    Attributes:
        weights: of the model, without the prefixes of wrappers.
        ema: the key of the moving average that was taken in place of the last weights; None: there is none.
        arguments: of the training program, where the file keeps them, as timm's `train.py` does.
    """

    weights: dict[str, Tensor]
    ema: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint: safetensors, or a torch file of tensors and plain values in any usual layout.

    Raises:
        CheckpointError: missing, damaged, holds more than tensors, or holds no state dict.
    """
    if path.is_dir():
        inside = next(
            (path / name for name in ("model.safetensors", "pytorch_model.bin") if (path / name).is_file()), None
        )
        raise CheckpointError(f"{path} is a folder.", f"Give the file in it: {inside or path / 'FILE'}")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint.", "Check the path.")
    content = _load(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} holds no state dict.",
            "Save the model's weights: torch.save(model.state_dict(), 'weights.pth')",
        )
    ema = next((key for key in _EMA if isinstance(content.get(key), Mapping)), None)
    found = content if ema is None else content[ema]
    import_timm()
    from timm.models import clean_state_dict

    named = {str(name): value for name, value in found.items()}
    given = content.get("args")
    arguments = vars(given) if isinstance(given, argparse.Namespace) else given
    return Checkpoint(
        find_state(clean_state_dict(find_state(named, path)), path),
        ema,
        dict(arguments) if isinstance(arguments, Mapping) else {},
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict; see `read_checkpoint`.

    Raises:
        CheckpointError: as `read_checkpoint`.
    """
    return read_checkpoint(path).weights


def load_weights(
    model: nn.Module,
    path: Path,
    on_new_classifier: Callable[[str], None] | None = None,
    on_change: Callable[[str], None] | None = None,
) -> None:
    """Load a checkpoint strictly, except for a new classifier.

    Args:
        on_new_classifier: called with a sentence if the checkpoint has no classifier of this shape, and the
            model keeps its own. None: the classifier must fit.
        on_change: called with words on weights that are not loaded as they are in the file, or chosen there.

    Raises:
        CheckpointError: as `read_checkpoint`, or the weights are of another model; names the differences.
    """
    own = model.state_dict()
    # No normalisation of timm reads this counter; old and converted weights lack it.
    counters = {name: value for name, value in own.items() if name.endswith(".num_batches_tracked")}
    checkpoint = read_checkpoint(path)
    weights, changes = checkpoint.weights, [] if checkpoint.ema is None else [f"its EMA weights, {checkpoint.ema}"]
    if find_misfits(own, {**counters, **weights}) and (converted := convert_for_timm(model, weights)) is not None:
        trained = find_trained_size(model, weights)
        weights = converted[0]
        if converted[1]:
            from_size = "" if trained is None else f" from {trained} px"
            changes.append(f"{converted[1][0]} resampled{from_size} to the images' size")
    if on_new_classifier is not None:
        weights = replace_other_classifier(model, own, weights, path, on_new_classifier)
    weights = {**counters, **weights}
    if faults := find_misfits(own, weights):
        raise CheckpointError(
            f"{path} does not fit {architecture(model)}: {'; '.join(faults)}.",
            explain_misfit(model, own, weights, path),
        )
    model.load_state_dict(weights, strict=True)
    if on_change is not None:
        for change in changes:
            on_change(change)


@dataclass(frozen=True)
class WeightsShape:
    """What the tensors of a checkpoint say of the model that they are of.

    Attributes:
        classes: 0 without a classifier; None: timm names no classifier layer.
        input_size: side of the images in pixels, of models of a fixed size; None: unknown.
    """

    classes: int | None
    input_size: int | None


def find_shape(section: ModelSection, weights: dict[str, Tensor]) -> WeightsShape:
    """Find the classes and the image size of a checkpoint by its tensors."""
    size = None
    if find_fixed_input(section.name) is not None:
        try:
            with torch.device("meta"):
                bare = import_timm().create_model(section.name, pretrained=False, **section.kwargs)
        except Exception:  # `create_model` reports it
            bare = None
        size = None if bare is None else find_trained_size(bare, weights)
    return WeightsShape(count_weight_classes(section.name, weights), size)


def count_classes(name: str, path: Path) -> int | None:
    """Count the classes of a checkpoint, 0 without a classifier; None: timm names no classifier layer.

    Raises:
        CheckpointError: as `read_checkpoint`.
    """
    return count_weight_classes(name, read_weights(path))


def count_weight_classes(name: str, weights: Mapping[str, Tensor]) -> int | None:
    """Count the classes of weights, 0 without a classifier; None: timm names no classifier layer."""
    names = list_classifiers(find_pretrained_cfg(name))
    if not names:
        return None
    for classifier in (*names, "head", "fc", "classifier"):  # the last three: names of old timm releases
        if (weight := weights.get(f"{classifier}.weight")) is not None:
            return len(weight)
    return 0


def _load(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with (
            allow_numpy_numbers(),
            torch.serialization.safe_globals([argparse.Namespace]),  # timm keeps its arguments in one
            warnings.catch_warnings(),
        ):  # torch warns of an unusual pickle, and then refuses it
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):
            raise CheckpointError(
                f"{path} holds more than tensors; loading it could run code from it.", format_trusted_hint(path)
            ) from error
        raise _damaged(path, "damaged, or no torch file of tensors") from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise _damaged(path, str(error) and read_first_line(error)) from error


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be read as a checkpoint: {reason or 'damaged, or no torch file of tensors'}.",
        "Give a .safetensors file, or a torch file of a state dict.",
    )
