"""Simplify the torch module and its graph for export; each change is proven equal and recorded."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from pydantic import Field
from torch import nn

from dskd_export.documents.base import Document
from dskd_export.errors import require
from dskd_export.onnx_from_torch.parity import Probe, difference, run_torch

NOTHING_TO_DO = "nothing to do"
"""Reason of a step that found nothing to change."""


class PassFacts(Document):
    """One step of an export: applied and proven equal, or left out with its reason."""

    name: str
    applied: bool
    max_abs_relative: float | None = Field(
        default=None,
        description="largest difference of the output / largest output, against the model before export",
    )
    reason: str | None = Field(default=None, description="why it was left out")

    @classmethod
    def judge(cls, name: str, found: float, limit: float) -> PassFacts:
        """Apply a step if the output differs by at most `limit` of its scale; else give the reason."""
        # Two digits: more of a rounding error says nothing, and differs between machines.
        rounded = float(f"{found:.1e}") if found != float("inf") else None
        reason = f"the output differs by {found:.1e} of its scale; the limit is {limit:.0e}"
        if rounded is None:
            reason = "the output is not finite, or has another shape"
        applied = found <= limit
        return cls(name=name, applied=applied, max_abs_relative=rounded, reason=None if applied else reason)


def graph_passes(*, slim: bool) -> dict[str, Callable[[Any], Any]]:
    """List the graph optimisers in order: name -> function from `onnx_ir` model to a new one."""
    return {"onnxscript optimizer": _run_onnxscript} | ({"onnxslim": _run_onnxslim} if slim else {})


def _run_onnxscript(graph: Any) -> Any:
    """Fold constants and batch norm; remove duplicate, unread and no-op nodes."""
    graph = graph.clone()
    require("onnxscript.optimizer", "onnx").optimize(graph)
    return graph


def _run_onnxslim(graph: Any) -> Any:
    """Apply onnxslim's patterns: more fusions, fewer reshapes."""
    ir, onnxslim = require("onnx_ir", "onnx"), require("onnxslim", "onnx")
    return ir.from_proto(onnxslim.slim(ir.to_proto(graph)))


LIMIT = 1e-5
_FUSE = ("fuse", "reparameterize", "switch_to_deploy")  # hooks of timm's reparameterize_model
_ACTIVATIONS = ("swish", "mish", "hard_sigmoid", "hard_swish", "hard_mish")


@dataclass(frozen=True)
class Surgery:
    """A change of a module, made in place.

    Attributes:
        name: for the records.
        needed: whether there is anything to change.
        apply: makes the change; may give back another module.
    """

    name: str
    needed: Callable[[nn.Module], bool]
    apply: Callable[[nn.Module], nn.Module]


def operate(module: nn.Module, probe: Probe) -> tuple[nn.Module, list[PassFacts]]:
    """Apply every change that keeps the outputs.

    Args:
        module: in eval mode; it is changed.
        probe: images and the module's answers to them.

    Returns:
        The changed module, and a record of each change.
    """
    facts = []
    for surgery in SURGERIES:
        if not surgery.needed(module):
            facts.append(PassFacts(name=surgery.name, applied=False, reason=NOTHING_TO_DO))
            continue
        try:
            changed = surgery.apply(copy.deepcopy(module))
            # Two images, a real and a random one where there are real ones.
            found = difference(probe.expected[:2], run_torch(changed, probe.images[:2]))
        except Exception as error:  # timm's own code, of any kind of failure
            facts.append(PassFacts(name=surgery.name, applied=False, reason=f"{type(error).__name__}: {error}"))
            continue
        facts.append(PassFacts.judge(surgery.name, found, LIMIT))
        module = changed if facts[-1].applied else module
    return module, facts


def _fuse(module: nn.Module) -> nn.Module:
    """Branches that only training needs become one convolution: RepVGG, MobileOne, LeViT and the like."""
    fused: nn.Module = require("timm.utils.model", "train").reparameterize_model(module, inplace=True)
    return fused


def _unfuse_attention(module: nn.Module) -> nn.Module:
    """Attention as products and a softmax: the fused operator scales queries and keys each, for more nodes."""
    for child in module.modules():
        if getattr(child, "fused_attn", False) is True:
            child.fused_attn = False  # type: ignore[assignment]
    return module


def _training_activations(module: nn.Module) -> dict[Any, Any]:
    """Activations with a backward pass of their own, which no exporter can follow -> timm's plain ones."""
    if not any(type(child).__module__.startswith("timm.") for child in module.modules()):
        return {}
    layers = require("timm.layers", "train")
    plain: dict[Any, Any] = {}
    for name in _ACTIVATIONS:
        for factory in (layers.get_act_layer, layers.get_act_fn):
            with layers.set_exportable(False):
                trained = factory(name)
            with layers.set_exportable(True):
                if factory(name) is not trained:
                    plain[trained] = factory(name)
    return plain


def _has_training_activations(module: nn.Module) -> bool:
    plain = _training_activations(module)
    return any(
        type(child) in plain or any(_is_key(value, plain) for value in vars(child).values())
        for child in module.modules()
    )


def _replace_activations(module: nn.Module) -> nn.Module:
    plain = _training_activations(module)
    for child in module.modules():
        for name, layer in list(child.named_children()):
            if type(layer) in plain:
                setattr(child, name, plain[type(layer)]().eval())
        for name, value in list(vars(child).items()):
            if _is_key(value, plain):
                setattr(child, name, plain[value])
    return module


def _is_key(value: Any, plain: dict[Any, Any]) -> bool:
    """Whether an attribute of a module is one of these functions; what cannot be hashed is none."""
    return isinstance(value, FunctionType) and value in plain


SURGERIES = (
    Surgery("exportable activations", _has_training_activations, _replace_activations),
    Surgery(
        "reparameterise",
        lambda module: any(hasattr(child, name) for child in list(module.modules())[1:] for name in _FUSE),
        _fuse,
    ),
    Surgery(
        "unfused attention",
        lambda module: any(getattr(child, "fused_attn", False) is True for child in module.modules()),
        _unfuse_attention,
    ),
)
