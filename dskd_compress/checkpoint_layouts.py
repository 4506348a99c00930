"""Layouts of checkpoints: where the state dict is, prefixes of its keys, and commands that repair a file."""

from __future__ import annotations

import json
import math
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dskd_export.errors import CheckpointError

State = dict[str, Tensor]

_NAMES = (
    "model_state_dict",
    "state_dict",
    "model",
    "net",
    "network",
    "model_state",
    "module",
    "weights",
    "params",
)
_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.", "encoder.")
_SHOWN = 5
# Tables that depend on the image size: of ViT, and of Swin and its relatives.
_POSITIONS = re.compile(r"pos_embed|relative_position_bias_table|rel_pos|relative_coords")


@contextmanager
def allow_numpy_numbers() -> Iterator[None]:
    """Allow numpy's numbers in torch's safe reader, such as a best accuracy next to the weights."""
    scalar = np.float64(0).__reduce__()[0]
    old_name = (scalar, "numpy.core.multiarray.scalar")
    kinds = [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?")]
    with torch.serialization.safe_globals([scalar, old_name, np.dtype, *kinds]):  # type: ignore[list-item]
        yield


def find_state(loaded: Mapping[str, Any], path: Path) -> State:
    """Find the state dict in the content of a file, and strip the prefixes of wrappers.

    Raises:
        CheckpointError: no state dict, or several.
    """
    tensors = {name: value for name, value in loaded.items() if isinstance(value, Tensor)}
    nested = {name: value for name, value in loaded.items() if isinstance(value, Mapping) and _has_tensors(value)}
    if nested and all(tensor.ndim == 0 for tensor in tensors.values()):
        known = [name for name in _NAMES if name in nested]
        if not known and len(nested) > 1:
            raise CheckpointError(
                f"{path} holds several state dicts: {_join_some(nested)}.",
                f"Extract the model's: {_format_keep_command(path, next(iter(nested)))}",
            )
        return find_state(nested[known[0] if known else next(iter(nested))], path)
    if not tensors:
        raise CheckpointError(
            f"{path} holds no tensors; its keys are {_join_some(loaded) or 'none'}.",
            "Save the model's weights: torch.save(model.state_dict(), 'weights.pth')",
        )
    while prefix := next((wrap for wrap in _WRAPPERS if all(name.startswith(wrap) for name in tensors)), None):
        tensors = {name[len(prefix) :]: tensor for name, tensor in tensors.items()}
    return tensors


def _has_tensors(value: Mapping[str, Any], depth: int = 3) -> bool:
    return depth > 0 and any(
        isinstance(item, Tensor) or (isinstance(item, Mapping) and _has_tensors(item, depth - 1))
        for name, item in value.items()
        if name != "state"  # of an optimizer
    )


def _join_some(names: Mapping[str, Any]) -> str:
    shown = ", ".join(map(str, list(names)[:_SHOWN]))
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def convert_for_timm(model: nn.Module, weights: State) -> tuple[State, list[str]] | None:
    """Convert weights of an older release, of the original authors or of another image size, by timm's own filter.

    Returns:
        The weights, and the names of the position tables that timm resampled to the model's image size. None: timm
        has no filter for the model, cannot read these weights, or resampled what makes another model of it.
    """
    rename = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if rename is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of timm's interpolation, which the user cannot change
            renamed = dict(rename(dict(weights), model))
    except Exception:  # the table is for other weights; the caller reports them
        return None
    resampled = [
        name for name, tensor in renamed.items() if name in weights and tensor.shape != weights[name].shape
    ]
    # Other patches than the model's, for example, are of another architecture.
    return (renamed, resampled) if all(_POSITIONS.search(name) for name in resampled) else None


def find_trained_size(model: nn.Module, weights: State) -> int | None:
    """Find the image size in pixels of a vision transformer's weights by its position embedding; None: unknown."""
    position, patches = weights.get("pos_embed"), getattr(model, "patch_embed", None)
    patch = getattr(patches, "patch_size", None)
    if position is None or position.ndim != 3 or not isinstance(patch, tuple):
        return None
    before = 0 if getattr(model, "no_embed_class", False) else int(getattr(model, "num_prefix_tokens", 0))
    tokens = position.shape[1] - before
    side = math.isqrt(max(tokens, 0))
    return side * int(patch[0]) if side and side * side == tokens else None


def find_prefix_hint(own: Mapping[str, Tensor], weights: State, path: Path) -> str | None:
    """Find the command that extracts the model's weights from those of a larger model; None: not contained."""
    first = next(iter(own))
    for name in weights:
        prefix = name[: -len(first)]
        inside = sum(f"{prefix}{key}" in weights for key in own)
        if prefix and name.endswith(first) and inside > len(own) // 2:
            code = (
                "import torch; from pathlib import Path; from dskd_compress.checkpoints import read_weights; "
                f"p = {json.dumps(prefix)}; s = read_weights(Path({json.dumps(str(path))})); "
                "torch.save({k[len(p):]: v for k, v in s.items() if k.startswith(p)}, "
                f"{json.dumps(_name_weights_file(path))})"
            )
            return f"Its weights are under '{prefix}'. Extract them: python -c {shlex.quote(code)}"
    return None


def find_misfits(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """List the differences between the tensors of a model and of a checkpoint, in words."""
    wrong = sorted(
        f"{name} is {tuple(weights[name].shape)}, the model has {tuple(own[name].shape)}"
        for name in own.keys() & weights.keys()
        if own[name].shape != weights[name].shape
    )
    missing, unexpected = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    return [
        f"{len(names)} {what} ({names[0]}{', ...' if len(names) > 1 else ''})"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
        if names
    ]


def explain_misfit(
    model: nn.Module,
    own: Mapping[str, Tensor],
    weights: dict[str, Tensor],
    path: Path,
) -> str:
    """Explain what to change for weights that do not fit."""
    trained, wanted = count_classifier_rows(model, weights), count_classifier_rows(model, own)
    if trained != wanted and own.keys() == weights.keys():
        return (
            f"It was trained on {trained} classes, the data has {wanted}: set data.source to that data, "
            "or give weights of these classes."
        )
    return (
        find_prefix_hint(own, weights, path)
        or "Give a checkpoint of this architecture, or set kwargs (num_classes, ...) as in its training."
    )


def replace_other_classifier(
    model: nn.Module,
    own: Mapping[str, Tensor],
    weights: dict[str, Tensor],
    path: Path,
    on_new_classifier: Callable[[str], None],
) -> dict[str, Tensor]:
    """Replace a classifier that is missing or has another shape by the model's own."""
    layers = tuple(f"{name}." for name in list_classifiers(getattr(model, "pretrained_cfg", None)))
    head = {name: tensor for name, tensor in own.items() if name.startswith(layers)} if layers else {}
    given = {name: tensor for name, tensor in weights.items() if name.startswith(layers)} if layers else {}
    if {name: tensor.shape for name, tensor in head.items()} == {n: tensor.shape for n, tensor in given.items()}:
        return weights
    classes = count_classifier_rows(model, given)
    size = "" if classes is None else f" of {classes} classes"
    lacks = f"{path}: its classifier{size} is left out" if given else f"{path} has no classifier"
    on_new_classifier(f"{lacks}; the model starts with a new one of {count_classifier_rows(model, head)} classes.")
    return {**{name: tensor for name, tensor in weights.items() if name not in given}, **head}


def list_classifiers(config: Mapping[str, Any] | Any) -> list[str]:
    """List timm's names of a model's classifier layers: one for most models, two for distilled ones."""
    found = config.get("classifier") if isinstance(config, Mapping) else getattr(config, "classifier", None)
    return [found] if isinstance(found, str) else list(found or ())


def count_classifier_rows(model: nn.Module, weights: Mapping[str, Tensor]) -> int | None:
    """Count the rows of the classifier in a state dict; None: timm names no classifier layer."""
    for classifier in list_classifiers(getattr(model, "pretrained_cfg", None))[:1]:
        bias = weights.get(f"{classifier}.bias")
        return None if bias is None else len(bias)
    return None


def format_trusted_hint(path: Path) -> str:
    """Format the command that extracts the weights of a trusted file; it runs the code in the file."""
    code = (
        "import torch; from dskd_compress.timm_import import import_timm; import_timm(); "
        f'c = torch.load({json.dumps(str(path))}, map_location="cpu", weights_only=False); '
        'c = c if hasattr(c, "state_dict") else c.get("model", c.get("state_dict", c)); '
        f'torch.save(c.state_dict() if hasattr(c, "state_dict") else c, {json.dumps(_name_weights_file(path))})'
    )
    return f"If you trust its author, extract the weights: python -c {shlex.quote(code)}"


def _format_keep_command(path: Path, key: str) -> str:
    code = (
        f'import torch; torch.save(torch.load({json.dumps(str(path))}, map_location="cpu")[{json.dumps(key)}], '
        f"{json.dumps(_name_weights_file(path))})"
    )
    return f"python -c {shlex.quote(code)}"


def _name_weights_file(path: Path) -> str:
    return str(path.with_name(f"{path.name.split('.')[0]}.weights.pth"))
