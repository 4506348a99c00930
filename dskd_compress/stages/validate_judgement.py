"""From what was measured to a verdict on the bundle itself, with the likely cause.

Shape suffixes: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dskd_compress.config import Recipe
from dskd_compress.label_space import names_for_device
from dskd_compress.weights import WeightsInfo
from dskd_export.bundle import Bundle
from dskd_export.documents.validation import Check, PreprocessParity
from dskd_export.validation.candidates import Contest
from dskd_export.validation.causes import explain_fields, explain_inputs, explain_labels, explain_logits
from dskd_export.validation.gate import check_count, check_golden, check_inputs
from dskd_export.validation.golden_images import check_golden_images
from dskd_export.validation.judgement import Outputs, golden_parity, logits_at


@dataclass(frozen=True)
class Measured(Outputs):
    """What the runners gave, and what was seen of the images on the way.

    Attributes:
        preprocess: the device's input against timm's.
        unlike: timm's and the device's input of some images where they differ; None: nowhere.
        golden_found: how many golden images were among the images.
        golden_unlike: what differs between those and the images.
        teacher: logits [N, K] of the teacher on its own input; None: it was not asked.
    """

    labels: NDArray[np.int64]
    preprocess: PreprocessParity = field(kw_only=True)
    unlike: tuple[NDArray[np.float32], NDArray[np.float32]] | None = field(kw_only=True)
    golden_found: int = field(kw_only=True)
    golden_unlike: Sequence[str] = field(kw_only=True)
    teacher: NDArray[Any] | None = field(kw_only=True, default=None)


def judge_bundle(
    recipe: Recipe, bundle: Bundle, info: WeightsInfo, contest: Contest, measured: Measured
) -> tuple[list[Check], list[str]]:
    """What holds for all models of a bundle: input, spec, golden images, labels; and the causes of failures."""
    section = recipe.validation
    unlike = _unlike_spec(bundle, info)
    shifted = explain_labels(measured.logits[contest.reference.name], measured.labels)
    inputs = check_inputs(measured.preprocess, section.max_pixel_error)
    checks = [
        inputs,
        check_count("spec", unlike, "as the weights were trained"),
        check_golden_images(measured.golden_found, len(measured.golden.labels), measured.golden_unlike),
        check_count("labels", [shifted] if shifted else [], "no shift of the classes fits better"),
    ]
    causes = [*unlike, *([shifted] if shifted else [])]
    if inputs.failed and measured.unlike is not None:
        known = explain_inputs(*measured.unlike, info.mean, info.std)
        if known is not None or not unlike:
            causes.append(known or "the device prepares its input in another way than timm")
    if contest.reference.kind == "torch":
        parity = golden_parity(contest.reference, bundle, measured.golden)
        checks.append(check_golden(parity, section.max_abs_relative))
        if checks[-1].failed:
            given_NK = logits_at(contest.reference, bundle, measured.golden.input, parity.batch)
            known = explain_logits(given_NK, measured.golden.logits)
            what = "golden.npz does not hold what the student gives for its images"
            causes.append(f"{what}: {known}" if known else what)
    return checks, causes


def _unlike_spec(bundle: Bundle, info: WeightsInfo) -> list[str]:
    """What the bundle says of its input and classes, its models carry the same, and the weights say otherwise."""
    expected = {
        "height": info.input_size[1],
        "width": info.input_size[2],
        "mean": info.mean,
        "std": info.std,
        "interpolation": info.interpolation,
        "crop_pct": info.crop_pct,
        "crop_mode": info.crop_mode,
        "classes": names_for_device(info.classes)[0],
    }
    given = {name: getattr(bundle.spec, name) for name in expected}
    return [f"spec.json: {text}" for text in explain_fields(given, expected)]
