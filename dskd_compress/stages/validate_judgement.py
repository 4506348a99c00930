"""From what was measured to a verdict on the bundle and on each of its models, with the likely cause.

Shape suffixes: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dskd_compress.config import Recipe
from dskd_compress.label_space import names_for_device
from dskd_compress.stages.validate_runners import Contest, Contestant
from dskd_compress.weights import WeightsInfo
from dskd_export.bundle import Bundle
from dskd_export.causes import explain_fields, explain_inputs, explain_labels, explain_logits
from dskd_export.compare import compare_outputs
from dskd_export.documents import Check, Judgement, Parity, PreprocessParity
from dskd_export.evaluate import compare_accuracy
from dskd_export.gate import (
    Limits,
    check_budget,
    check_count,
    check_finite,
    check_golden,
    check_inputs,
    check_limits,
    failure_of,
)
from dskd_export.golden import Golden
from dskd_export.runtime.batches import logits_of
from dskd_export.runtime.runner import Array

BATCH = 16
"""Images of one call. Every runner keeps the memory of its largest call, and several are open at a time."""

# Rows of logits that are enough to see what a failure looks like.
_ROWS = 512
# Checks that compare logits of the same inputs, whatever the device's preprocessing makes of an image.
_SAME_INPUT = {"max abs / scale", "mean abs / scale", "cosine", "KL", "finite logits"}
# Of the many images that may be wrong, so many are named.
_NAMED = 3


@dataclass(frozen=True)
class Measured:
    """What the runners gave.

    Attributes:
        labels: int64 [N].
        logits: runner -> logits [N, K], each runner on its own input; the reference first.
        same_input: the reference's logits [N, K] of the inputs that the candidates got.
        first_inputs: the device's input of the first images.
        preprocess: the device's input against timm's.
        unlike: timm's and the device's input of some images where they differ; None: nowhere.
        golden: the bundle's golden images.
        golden_found: how many of them were among the images.
        golden_unlike: what differs between those and the images.
    """

    labels: NDArray[np.int64]
    logits: Mapping[str, NDArray[Any]]
    same_input: NDArray[Any]
    first_inputs: Array
    preprocess: PreprocessParity
    unlike: tuple[NDArray[np.float32], NDArray[np.float32]] | None
    golden: Golden
    golden_found: int
    golden_unlike: Sequence[str]


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
        _golden_images(measured),
        check_count("labels", [shifted] if shifted else [], "no shift of the classes fits better"),
    ]
    causes = [*unlike, *([shifted] if shifted else [])]
    if inputs.failed and measured.unlike is not None:
        known = explain_inputs(*measured.unlike, info.mean, info.std)
        if known is not None or not unlike:
            causes.append(known or "the device prepares its input in another way than timm")
    if contest.reference.kind == "torch":
        parity = _golden_parity(contest.reference, bundle, measured.golden)
        checks.append(check_golden(parity, section.max_abs_relative))
        if checks[-1].failed:
            given_NK = _logits(contest.reference, bundle, measured.golden.input, parity.batch)
            known = explain_logits(given_NK, measured.golden.logits)
            what = "golden.npz does not hold what the student gives for its images"
            causes.append(f"{what}: {known}" if known else what)
    return checks, causes


def judge_candidate(
    recipe: Recipe,
    bundle: Bundle,
    reference: Contestant,
    candidate: Contestant,
    measured: Measured,
    before: Sequence[Judgement],
) -> Judgement:
    """The verdict on one model.

    Args:
        recipe: limits and budget.
        bundle: for its names and classes.
        reference: what it is held against.
        candidate: the model; it is called again, at other batch sizes.
        measured: what both gave.
        before: judgements so far; a failure of fp32 explains that of the precisions made from it.
    """
    section, is_full = recipe.validation, candidate.precision == "fp32"
    parity = list(_parity(section.batches, bundle, reference, candidate, measured))
    accuracy = compare_accuracy(
        measured.logits[reference.name], measured.logits[candidate.name], measured.labels, bundle.spec.classes
    )
    budget = recipe.budget.of(candidate.precision)
    if is_full:
        limits = Limits(**section.model_dump(include=set(Limits.model_fields)))
        checks = check_limits(limits, parity, accuracy)
    else:
        checks = [check_finite(parity)]
    checks += check_budget(budget, parity, accuracy, candidate.size_mb)
    golden = _golden_parity(candidate, bundle, measured.golden)
    parity.append(golden)
    if is_full:
        checks.append(check_golden(golden, section.max_abs_relative))
    elif budget.mean_abs_relative is not None:
        checks.append(check_golden(golden, budget.mean_abs_relative, "mean_abs_relative"))
    reason = failure_of(checks)
    return Judgement(
        runner=candidate.name,
        precision=candidate.precision,
        provider=candidate.provider,
        verdict="FAIL" if reason else "PASS",
        reason=reason,
        native=candidate.native.native,
        native_reason=candidate.native.reason,
        size_mb=candidate.size_mb,
        parity=parity,
        accuracy=accuracy,
        checks=checks,
        causes=list(_causes(bundle, reference, candidate, measured, before, checks)) if reason else [],
    )


def _parity(
    batches: Sequence[int], bundle: Bundle, reference: Contestant, candidate: Contestant, measured: Measured
) -> Iterator[Parity]:
    """The candidate against the reference on the same inputs: all of them, then the first in other batches."""
    names = {"reference_name": reference.name, "candidate_name": candidate.name}
    reference_NK = measured.same_input
    yield compare_outputs(reference_NK, measured.logits[candidate.name], batch=BATCH, **names)
    images = len(measured.first_inputs)
    for batch in batches:
        candidate_NK = _logits(candidate, bundle, measured.first_inputs, batch)
        yield compare_outputs(reference_NK[:images], candidate_NK, batch=batch, **names)


def _golden_parity(contestant: Contestant, bundle: Bundle, golden: Golden) -> Parity:
    batch = len(golden.input)
    logits_NK = _logits(contestant, bundle, golden.input, batch)
    return compare_outputs(
        golden.logits, logits_NK, reference_name="golden.npz", candidate_name=contestant.name, batch=batch
    )


def _logits(contestant: Contestant, bundle: Bundle, inputs_N: Array, batch: int) -> NDArray[Any]:
    spec = bundle.spec
    return logits_of(
        contestant.runner, inputs_N, batch=batch, input_name=spec.input_name, output_name=spec.output_name
    )


def _golden_images(measured: Measured) -> Check:
    found, all_of_them = measured.golden_found, len(measured.golden.labels)
    if not found:
        return Check(
            name="golden images",
            value=None,
            limit=0.0,
            comparison="<=",
            verdict="NOT JUDGED",
            detail="none of them is among the images",
        )
    wrong = list(measured.golden_unlike[:_NAMED])
    check = check_count("golden images", wrong, f"{found} of {all_of_them} were among the images")
    return check.model_copy(update={"value": float(len(measured.golden_unlike))})


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


def _causes(
    bundle: Bundle,
    reference: Contestant,
    candidate: Contestant,
    measured: Measured,
    before: Sequence[Judgement],
    checks: Sequence[Check],
) -> Iterator[str]:
    """What a failure looks like. What only more images could show has no cause."""
    failed = {check.name for check in checks if check.verdict == "FAIL"} - {"size", "golden logits"}
    if not failed:
        return
    file = candidate.name if candidate.kind == "torch" else bundle.model_path(candidate.precision).name
    if not failed & _SAME_INPUT and measured.preprocess.differing_pixels:
        yield f"{file} agrees with {reference.name} on the same inputs: what is lost comes with the device's input"
        return
    known = explain_logits(measured.same_input[:_ROWS], measured.logits[candidate.name][:_ROWS])
    made_from = next(
        (one for one in before if one.precision == "fp32" and one.provider == candidate.provider), None
    )
    if known is not None:
        yield f"{file}: {known}"
    elif _takes_bgr(bundle, candidate, measured):
        yield f"{file}: the model takes its channels in the order BGR; its spec says RGB"
    elif candidate.precision == "fp32" or made_from is None:
        yield (
            f"{file}: on the very same inputs it gives other logits than {reference.name}; one of its nodes or "
            "weights is another"
        )
    elif made_from.verdict == "PASS":
        yield f"{file}: model.fp32.onnx passes on the same images, so this comes from the conversion"
    else:
        yield f"{file}: model.fp32.onnx fails on the same images: look there first"


def _takes_bgr(bundle: Bundle, candidate: Contestant, measured: Measured) -> bool:
    """Whether the candidate agrees with the reference once the channels are turned round, and not before."""
    inputs_N = measured.first_inputs
    turned_N = inputs_N[..., ::-1] if bundle.spec.input_layout == "NHWC" else inputs_N[:, ::-1]
    first_N = measured.same_input[: len(inputs_N)].argmax(axis=1)
    before_N = measured.logits[candidate.name][: len(inputs_N)].argmax(axis=1)
    after_N = _logits(candidate, bundle, turned_N, BATCH).argmax(axis=1)
    return bool((after_N == first_N).mean() > 0.9 > (before_N == first_N).mean())
