"""How hard each loss term pulls: the norm of its gradient, at one layer that all of them share.

GradNorm (arXiv 1711.02257, section 3) weighs terms by their gradients on the last shared layer: the
gradients of all layers before it come through there, and it costs a small part of a backward pass. Which
layer that is shows in the graph of the first step.

A compiled module is one piece to autograd: it hides which term reaches what, and runs its whole backward
pass for any of it. The norm is then taken over all parameters of the student.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dskd_compress.methods.base import MethodTask


class TermGradients:
    """Norms of the gradients of the terms of one task.

    Attributes:
        reaching: terms with a path to a parameter of the student; known after the first `measure`.
        place: term -> name of the parameter that its gradient is taken at.

    """

    def __init__(self, task: MethodTask) -> None:
        self._task = task
        self.reaching: set[str] = set()
        self.place: dict[str, str] = {}
        self._parameters: dict[str, list[Tensor]] = {}

    def measure(self, terms: Mapping[str, Tensor], scale: float = 1.0) -> dict[str, float | None]:
        """Norm of d term / d parameter for each term; the graph stays, no `.grad` is touched, nothing is drawn.

        Args:
            terms: weighted scalar losses with their graphs.
            scale: factor under which half precision does not underflow; the norms are without it.

        Returns:
            None for a term that has no gradient.
        """
        if not self.place:
            (self._take_all if self._task.compiled else self._find_places)(terms)
        norms: dict[str, float | None] = {}
        for name, term in terms.items():
            gradients = self._gradients(term, self._parameters.get(name, []), scale)
            known = [gradient.float().norm() for gradient in gradients if gradient is not None]
            norms[name] = float(torch.stack(known).norm()) / scale if known else None
        return norms

    def _take_all(self, terms: Mapping[str, Tensor]) -> None:
        """All parameters of the student, or for a term of the heads all that are not the student's."""
        self.reaching = set(terms)
        for term in terms:
            of_heads = term in self._task.module.head_terms
            self.place[term] = "training-only heads" if of_heads else "student"
            self._parameters[term] = [
                parameter
                for name, parameter in self._task.module.named_parameters()
                if parameter.requires_grad and name.startswith("student.") != of_heads
            ]

    def _find_places(self, terms: Mapping[str, Tensor]) -> None:
        """The last weight of the student that all terms reach, or of what else a term reaches."""
        named = {name: p for name, p in self._task.module.named_parameters() if p.requires_grad}
        reached = {
            term: [name for name, g in zip(named, self._gradients(loss, list(named.values())), strict=True)
                   if g is not None]
            for term, loss in terms.items()
        }  # fmt: skip
        own = {term: [name for name in names if name.startswith("student.")] for term, names in reached.items()}
        self.reaching = {term for term, names in own.items() if names}
        shared = [name for name in named if all(name in own[term] for term in self.reaching)]
        for term, names in reached.items():
            candidates = (shared or own[term]) if term in self.reaching else names
            weights = [name for name in candidates if named[name].ndim > 1] or candidates
            if weights:
                self.place[term] = weights[-1]
                self._parameters[term] = [named[weights[-1]]]

    @staticmethod
    def _gradients(term: Tensor, parameters: list[Tensor], scale: float = 1.0) -> tuple[Tensor | None, ...]:
        if not term.requires_grad or not parameters:
            return (None,) * len(parameters)
        loss = term * scale if scale != 1.0 else term
        with torch.autocast(term.device.type, enabled=False):
            return torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
