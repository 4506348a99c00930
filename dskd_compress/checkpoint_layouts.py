"""How trainers lay out checkpoints: where the state dict is, what its keys begin with, and how to mend a file."""

from __future__ import annotations

import json
import math
import shlex
import sys
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


@contextmanager
def numbers_allowed() -> Iterator[None]:
    """Let torch's safe reader take numpy's numbers, such as a best accuracy next to the weights."""
    scalar = np.float64(0).__reduce__()[0]
    old_name = (scalar, "numpy.core.multiarray.scalar")
    kinds = [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?")]
    with torch.serialization.safe_globals([scalar, old_name, np.dtype, *kinds]):  # type: ignore[list-item]
        yield


def find_state(loaded: Mapping[str, Any], path: Path) -> State:
    """The state dict in what a file holds, without the prefixes of wrappers around the model.

    Raises:
        CheckpointError: there is none, or several of which nobody can tell which is meant.
    """
    tensors = {name: value for name, value in loaded.items() if isinstance(value, Tensor)}
    nested = {name: value for name, value in loaded.items() if isinstance(value, Mapping) and _has_tensors(value)}
    if nested and all(tensor.ndim == 0 for tensor in tensors.values()):
        known = [name for name in _NAMES if name in nested]
        if not known and len(nested) > 1:
            raise CheckpointError(
                f"{path} holds several state dicts: {_some(nested)}.",
                f"Keep the model's: {_keep_command(path, next(iter(nested)))}",
            )
        return find_state(nested[known[0] if known else next(iter(nested))], path)
    if not tensors:
        raise CheckpointError(
            f"{path} holds no tensors; its keys are {_some(loaded) or 'none'}.",
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


def _some(names: Mapping[str, Any]) -> str:
    shown = ", ".join(map(str, list(names)[:_SHOWN]))
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def as_timm_names(model: nn.Module, weights: State) -> tuple[State, bool] | None:
    """Weights of an older release or of the original authors under timm's names of today, by timm's own table.

    Returns:
        The weights, and whether each is a tensor of the file: False where timm resampled some to another image
        size. None where timm has no table for the model, or cannot read these weights.
    """
    rename = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if rename is None:
        return None
    try:
        renamed = dict(rename(dict(weights), model))
    except Exception:  # a table for other weights than these; what is wrong with them is said elsewhere
        return None
    own = {id(tensor) for tensor in weights.values()}
    return renamed, all(id(tensor) in own for tensor in renamed.values())


def trained_size(model: nn.Module, weights: State) -> int | None:
    """Image size in pixels of a vision transformer's weights, by its position embedding; None where unknown."""
    position, patches = weights.get("pos_embed"), getattr(model, "patch_embed", None)
    patch = getattr(patches, "patch_size", None)
    if position is None or position.ndim != 3 or not isinstance(patch, tuple):
        return None
    before = 0 if getattr(model, "no_embed_class", False) else int(getattr(model, "num_prefix_tokens", 0))
    tokens = position.shape[1] - before
    side = math.isqrt(max(tokens, 0))
    return side * int(patch[0]) if side and side * side == tokens else None


def prefix_hint(own: Mapping[str, Tensor], weights: State, path: Path) -> str | None:
    """The command that takes the model's weights out of a larger model's; None where they are not in there."""
    first = next(iter(own))
    for name in weights:
        prefix = name[: -len(first)]
        inside = sum(f"{prefix}{key}" in weights for key in own)
        if prefix and name.endswith(first) and inside > len(own) // 2:
            code = (
                "import torch; from pathlib import Path; from dskd_compress.models import read_weights; "
                f"p = {json.dumps(prefix)}; s = read_weights(Path({json.dumps(str(path))})); "
                "torch.save({k[len(p):]: v for k, v in s.items() if k.startswith(p)}, "
                f"{json.dumps(_beside(path))})"
            )
            return f"Its weights are under '{prefix}'. Take them out: python -c {shlex.quote(code)}"
    return None


def misfits(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """What differs between a model's own tensors and those of a checkpoint, in words; empty where all fit."""
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


def misfit_cure(
    model: nn.Module,
    own: Mapping[str, Tensor],
    weights: dict[str, Tensor],
    path: Path,
    size_option: str | None,
) -> str:
    """What to do about weights that do not fit; `size_option` where another input size is all that differs."""
    if size_option is not None:
        size = trained_size(model, weights)
        return f"It was trained on images of another size: add {size_option}{size or 'SIZE'}"
    trained, wanted = classes_of(model, weights), classes_of(model, own)
    if trained != wanted and own.keys() == weights.keys():
        return (
            f"It was trained on {trained} classes, these are {wanted}: give the data of that training, or weights "
            "that were trained on these classes."
        )
    return (
        prefix_hint(own, weights, path)
        or "Give the checkpoint of this architecture, or set kwargs (num_classes, ...) as it was trained."
    )


def without_other_classifier(
    model: nn.Module,
    own: Mapping[str, Tensor],
    weights: dict[str, Tensor],
    path: Path,
    on_new_classifier: Callable[[str], None],
) -> dict[str, Tensor]:
    """The weights, with the model's own classifier where theirs is missing or has another shape."""
    layers = tuple(f"{name}." for name in classifiers_of(getattr(model, "pretrained_cfg", None)))
    head = {name: tensor for name, tensor in own.items() if name.startswith(layers)} if layers else {}
    given = {name: tensor for name, tensor in weights.items() if name.startswith(layers)} if layers else {}
    if {name: tensor.shape for name, tensor in head.items()} == {n: tensor.shape for n, tensor in given.items()}:
        return weights
    classes = classes_of(model, given)
    on_new_classifier(
        f"{path}: its classifier{'' if classes is None else f' of {classes} classes'} is left out; "
        f"the model starts with a new one of {classes_of(model, head)} classes."
        if given
        else f"{path} has no classifier; the model starts with a new one of {classes_of(model, head)} classes."
    )
    return {**{name: tensor for name, tensor in weights.items() if name not in given}, **head}


def classifiers_of(config: Mapping[str, Any] | Any) -> list[str]:
    """Names of a model's last layers as timm has them; most have one, a distilled one has two."""
    found = config.get("classifier") if isinstance(config, Mapping) else getattr(config, "classifier", None)
    return [found] if isinstance(found, str) else list(found or ())


def classes_of(model: nn.Module, weights: Mapping[str, Tensor]) -> int | None:
    """Rows of the classifier in a state dict; None where timm does not tell which layer that is."""
    for classifier in classifiers_of(getattr(model, "pretrained_cfg", None))[:1]:
        bias = weights.get(f"{classifier}.bias")
        return None if bias is None else len(bias)
    return None


def trusted_hint(path: Path) -> str:
    """The command that keeps the weights of a file whose author the user trusts; it runs what is in the file."""
    code = (
        "import torch; from dskd_compress.timm_import import import_timm; import_timm(); "
        f'c = torch.load({json.dumps(str(path))}, map_location="cpu", weights_only=False); '
        'c = c if hasattr(c, "state_dict") else c.get("model", c.get("state_dict", c)); '
        f'torch.save(c.state_dict() if hasattr(c, "state_dict") else c, {json.dumps(_beside(path))})'
    )
    return f"If you trust its author, keep the weights alone: python -c {shlex.quote(code)}"


def _keep_command(path: Path, key: str) -> str:
    code = (
        f'import torch; torch.save(torch.load({json.dumps(str(path))}, map_location="cpu")[{json.dumps(key)}], '
        f"{json.dumps(_beside(path))})"
    )
    return f"python -c {shlex.quote(code)}"


def _beside(path: Path) -> str:
    return str(path.with_name(f"{path.name.split('.')[0]}.weights.pth"))
