"""State of teacher and optimizer: eval mode, frozen, unchanged weights, no parameter left out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dskd_compress.training.diagnosis.symptom import Symptom

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def checksum(model: nn.Module) -> Tensor:
    """Exact integer sum over the bits of every parameter and buffer, one scalar a tensor, on the device.

    Integer sums wrap and do not depend on their order: equal weights give equal sums on any device. A change
    that leaves all sums alike would pass, so the sha256 is compared as well at the end.
    """
    sums = []
    for tensor in model.state_dict().values():
        real = torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor.detach()
        bits = real.contiguous().flatten().view(_WORDS[real.element_size()])
        sums.append(bits.sum(dtype=torch.int64))
    return torch.stack(sums) if sums else torch.zeros(0, dtype=torch.int64)


def mode_symptom(model: nn.Module) -> Symptom | None:
    """A teacher with a module in train mode."""
    modules = [name or "the whole model" for name, module in model.named_modules() if module.training]
    if not modules:
        return None
    return Symptom(
        "teacher_mode",
        modules[0],
        f"{len(modules)} modules of the teacher are in train mode, the first is {modules[0]}.",
        "Its dropout is on and its batch statistics follow the training images: it teaches noise, and changes.",
        "Call teacher.eval() after every train() of what holds it, or wrap it in "
        "dskd_compress.methods.base.Teacher, which stays in eval mode.",
    )


def frozen_symptom(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> Symptom | None:
    """A teacher whose parameters ask for gradients, or lie in the optimizer."""
    optimized = {id(p) for group in (optimizer.param_groups if optimizer else ()) for p in group["params"]}
    loose = [name for name, p in model.named_parameters() if p.requires_grad or id(p) in optimized]
    if not loose:
        return None
    return Symptom(
        "teacher_not_frozen",
        loose[0],
        f"{len(loose)} parameters of the teacher are not frozen, the first is {loose[0]}.",
        "The loss can be lowered by moving the teacher towards the student, which teaches nothing.",
        "Call teacher.requires_grad_(False) and keep its parameters out of the optimizer.",
    )


def changed_symptom(name: str | None, since: str) -> Symptom:
    """A teacher that is no longer the one of the start.

    Args:
        name: the first parameter or buffer that differs, where it is known.
    """
    which = "" if name is None else f"; the first that differs is {name}"
    return Symptom(
        "teacher_changed",
        name,
        f"The teacher's weights or buffers have changed {since}{which}.",
        "The student learns from a moving teacher that is not the one that was evaluated.",
        "Keep it in eval mode (a buffer of batch statistics changes in train mode), frozen, out of the optimizer, "
        "and share no module between teacher and student.",
    )


def find_difference(model: nn.Module, before: Tensor, after: Tensor) -> str | None:
    """Name the first tensor whose checksum differs; None where all are alike."""
    if torch.equal(before, after):
        return None
    names = list(model.state_dict())
    return names[int((before != after).nonzero()[0])]


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
