"""Read checkpoints of any trainer without running code from them."""

from __future__ import annotations

import argparse
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dskd_compress.checkpoint_layouts import allow_numpy_numbers, find_state, format_trusted_hint
from dskd_compress.pretrained import read_first_line
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
