"""Whether everything that asks for a gradient is also moved by the optimizer."""

from __future__ import annotations

import torch
from torch import nn

from dskd_compress.training.diagnosis.symptom import Symptom


def not_optimized_symptom(module: nn.Module, optimizer: torch.optim.Optimizer) -> Symptom | None:
    """A trainable parameter that the optimizer does not have: its head looks fine and teaches nothing."""
    optimized = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    forgotten = [
        name
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and id(parameter) not in optimized
    ]
    if not forgotten:
        return None
    heads = list(dict.fromkeys(name.split(".")[0] for name in forgotten))
    return Symptom(
        "not_optimized",
        heads[0],
        f"The optimizer has no parameter of {', '.join(heads)}: {len(forgotten)} are left out, "
        f"the first is {forgotten[0]}."
        if len(heads) == 1
        else f"{len(forgotten)} parameters of {', '.join(heads)} are not in the optimizer.",
        "They keep their random values, and what reaches the student through them is noise.",
        "Make the optimizer from the whole trainable module, after its heads were added, not from the student.",
    )
