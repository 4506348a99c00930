"""Denoised features that say the same of every image. Pure checks over the method's monitors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dskd_compress.training.diagnosis.symptom import Symptom

SETTLED = 25  # steps after which a student's features differ from image to image
WINDOW = 2  # looks in a row

LIMITS = {
    "denoised_spread": (0.05, "the denoised features of a batch differ by {value:.2g} of what the teacher's do"),
    "hash_bit_entropy_denoised": (0.1, "a hash bit of the denoised features holds {value:.2g} bits over a batch"),
}
"""Monitor -> least value, and in words what it says."""


def collapsed_symptom(looks: Sequence[tuple[int, Mapping[str, float]]]) -> Symptom | None:
    """The virtual teacher gives (nearly) one feature for all images.

    Args:
        looks: step and monitors of each look, the newest last.
    """
    recent = [monitors for step, monitors in looks if step >= SETTLED][-WINDOW:]
    if len(recent) < WINDOW:
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
