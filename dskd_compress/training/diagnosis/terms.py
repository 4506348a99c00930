"""Loss terms and targets that teach the student nothing, or drown all others. Pure checks over numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from dskd_compress.training.diagnosis.symptom import Symptom

WINDOW = 3  # snapshots in a row
DEAD = 1e-6  # a term's gradient for its value, relative to that of the liveliest term
EXPLODING = 1e3  # times the largest cross-entropy so far, in value or gradient
YARDSTICK = "ce"


@dataclass(frozen=True)
class Snapshot:
    """Weighted loss terms and the norms of their gradients at one step; None: no gradient at all."""

    step: int
    values: Mapping[str, float]
    norms: Mapping[str, float | None]


def unreached_symptoms(terms: Sequence[str], reaching: Set[str], head_terms: Set[str]) -> list[Symptom]:
    """Terms whose gradient cannot reach the student: something on the way is detached.

    Args:
        reaching: those with a path to a parameter of the student.
        head_terms: those that train only the training-only heads, by design.
    """
    return [
        _dead(
            term,
            f"No gradient of the loss term '{term}' can reach the student.",
            "Remove the detach() or no_grad() between the student's output and this term.",
        )
        for term in terms
        if term not in reaching and term not in head_terms
    ]


def dead_symptoms(snapshots: Sequence[Snapshot]) -> list[Symptom]:
    """Terms whose gradient was next to nothing at each of the last snapshots.

    A gradient is compared with the value of the term, so that a weight that rises from zero, or a loss
    that is nearly solved, is not taken for a dead one. A value of exactly 0 counts only for a term that has
    never been alive: some have nothing to say of some batches.
    """
    if len(snapshots) < WINDOW:
        return []
    return [
        _dead(
            term,
            f"The gradient of the loss term '{term}' was {_plain(snapshots[-1].norms[term])} at {WINDOW} checks "
            f"in a row, with a weighted loss of {snapshots[-1].values[term]:.3g}.",
            "If its weight is 0 on purpose, nothing is wrong. Otherwise look for a saturated loss "
            "(method.hash_std, method.temperature), a weight of 0, or a target that "
            "already equals the student's feature.",
        )
        for term in snapshots[-1].norms
        if all(_is_dead(term, shot) for shot in snapshots[-WINDOW:])
        and (snapshots[-1].values[term] != 0 or all(_is_dead(term, shot) for shot in snapshots))
    ]


def exploding_symptoms(snapshots: Sequence[Snapshot]) -> list[Symptom]:
    """Terms that were more than a thousand times the cross-entropy at the last two snapshots."""
    if len(snapshots) < 2:
        return []
    value = max((shot.values.get(YARDSTICK, 0.0) for shot in snapshots), default=0.0)
    norm = max((shot.norms.get(YARDSTICK) or 0.0 for shot in snapshots), default=0.0)
    found = []
    for term in snapshots[-1].values:
        if term == YARDSTICK:
            continue
        by_value = value > 0 and all(shot.values.get(term, 0.0) > EXPLODING * value for shot in snapshots[-2:])
        by_norm = norm > 0 and all((shot.norms.get(term) or 0.0) > EXPLODING * norm for shot in snapshots[-2:])
        if by_value or by_norm:
            found.append(_exploding(term, snapshots[-1], value, norm))
    return found


def _is_dead(term: str, shot: Snapshot) -> bool:
    if term not in shot.norms:
        return False
    norm, value = shot.norms[term], shot.values[term]
    if not norm:
        return True
    if not math.isfinite(norm) or value == 0:
        return False
    rates = [other / abs(shot.values[name]) for name, other in shot.norms.items() if other and shot.values[name]]
    return norm / abs(value) < DEAD * max(rates)


def _dead(term: str, seen: str, cure: str) -> Symptom:
    return Symptom("dead_term", term, seen, "The student learns nothing from this term.", cure)


def _exploding(term: str, shot: Snapshot, value: float, norm: float) -> Symptom:
    return Symptom(
        "exploding_term",
        term,
        f"The loss term '{term}' is {shot.values[term]:.3g} with a gradient of {_plain(shot.norms.get(term))}, "
        f"the cross-entropy was at most {value:.3g} with a gradient of {norm:.3g}.",
        "The gradient is all this term's: after clipping nothing is left of the labels.",
        f"Lower its weight (method.{term}_weight, where the method has it) or train.lr; where method.feature_norm "
        "is none, set it to teacher_stats.",
    )


def _plain(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"


SETTLED = 25  # steps after which a student's features differ from image to image
TARGET_WINDOW = 2  # snapshots in a row

LIMITS = {
    "denoised_spread": (0.05, "the denoised features of a batch differ by {value:.2g} of what the teacher's do"),
    "hash_bit_entropy_denoised": (0.1, "a hash bit of the denoised features holds {value:.2g} bits over a batch"),
}
"""Monitor -> least value, and in words what it says."""


def collapsed_symptom(snapshots: Sequence[tuple[int, Mapping[str, float]]]) -> Symptom | None:
    """The virtual teacher gives (nearly) one feature for all images.

    Args:
        snapshots: step and monitors of each snapshot, the newest last.
    """
    recent = [monitors for step, monitors in snapshots if step >= SETTLED][-TARGET_WINDOW:]
    if len(recent) < TARGET_WINDOW:
        return None
    for name, (limit, words) in LIMITS.items():
        if all(name in monitors and monitors[name] < limit for monitors in recent):
            seen = words.format(value=recent[-1][name])
            return Symptom(
                "collapsed_target",
                name,
                f"{seen[0].upper()}{seen[1:]} (least healthy value: {limit:g}).",
                "The denoised features have collapsed: every image pulls the student to the same point.",
                "Lower method.guide_scale or set method.guide_clip, keep method.start_scale: teacher and "
                "method.head_weight above 0, and see that the diffusion loss falls below 1.",
            )
    return None
