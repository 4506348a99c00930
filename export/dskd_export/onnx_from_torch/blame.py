"""Explain why an export failed, and in which module, from torch's own error."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

import torch
from torch import nn

from dskd_export.onnx_from_torch.deployed import STUDENT


def explain(error: BaseException, model: nn.Module) -> str:
    """One line: `in layer1.0.attn (Attention): <reason>`; without the place where torch does not name it."""
    chain = list(_chain(error))
    place = next((found for link in reversed(chain) if (found := _place(link, model))), None)
    # The innermost error is the reason; those around it say which step of the exporter met it.
    reason = next((line for link in reversed(chain) if (line := _line(link))), type(error).__name__)
    return f"in {place}: {reason}" if place else reason


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _line(error: BaseException) -> str:
    """The first line of a message that is not empty."""
    for line in str(error).splitlines():
        if line.strip():
            return f"{type(error).__name__}: {line.strip()}"
    return ""


def _place(error: BaseException, model: nn.Module) -> str | None:
    """The innermost module of the model in a traceback, by what the frames hold."""
    names = {
        id(module): (name.removeprefix(f"{STUDENT}."), type(module).__name__)
        for name, module in model.named_modules()
        if name
    }
    place = None
    traceback: TracebackType | None = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame.f_locals
        if found := names.get(id(frame.get("self"))):
            place = f"{found[0]} ({found[1]})"
        elif isinstance(node := frame.get("node"), torch.fx.Node):  # of the exporter's walk over the graph
            stack = list((node.meta.get("nn_module_stack") or {}).values())
            if stack and stack[-1][0]:
                kind = stack[-1][1]
                place = (
                    f"{stack[-1][0]} ({getattr(kind, '__name__', str(kind).rpartition('.')[2])}), {node.target}"
                )
        traceback = traceback.tb_next
    return place
