"""From what was measured to a verdict on each model, with the likely cause.

Shape suffixes: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dskd_export.bundle import Bundle
from dskd_export.bundle.golden import Golden
from dskd_export.documents.validation import Check, Judgement, Parity
from dskd_export.runtime.batches import logits_of
from dskd_export.runtime.runner import Array
from dskd_export.settings import PrecisionBudget, ValidateSettings
from dskd_export.validation.accuracy import compare_accuracy
from dskd_export.validation.candidates import FULL, Contestant
from dskd_export.validation.causes import explain_logits
from dskd_export.validation.gate import NO_IMAGES, check_budget, check_finite, check_golden, check_limits
from dskd_export.validation.parity import compare_outputs
from dskd_export.validation.verdicts import reason_of, verdict_of

BATCH = 16
"""Images of one call. Every runner keeps the memory of its largest call, and several are open at a time."""

# Rows of logits that are enough to see what a failure looks like.
_ROWS = 512
# Checks that compare logits of the same inputs, whatever the device's preprocessing makes of an image.
_SAME_INPUT = {"max abs / scale", "mean abs / scale", "cosine", "KL", "finite logits"}


@dataclass(frozen=True)
class Outputs:
    """What the runners gave.

    Attributes:
        labels: int64 [N]; None: there is no accuracy, as `no_labels` says.
        logits: runner -> logits [N, K], each runner on its own input; the reference first.
        same_input: the reference's logits [N, K] of the inputs that the candidates got.
        first_inputs: the device's input of the first images.
        golden: the bundle's golden images.
        differing_pixels: between the device's input and the reference's own; 0: they are the same, or there
            is no other to hold it against.
        no_labels: why there is no accuracy.
    """

    labels: NDArray[np.int64] | None
    logits: Mapping[str, NDArray[Any]]
    same_input: NDArray[Any]
    first_inputs: Array
    golden: Golden
    differing_pixels: int = 0
    no_labels: str = NO_IMAGES


@dataclass(frozen=True)
class Rules:
    """What a model is held to.

    Attributes:
        limits: of fp32.
        budget: of this precision.
        batches: sizes of the calls that are compared.
    """

    limits: ValidateSettings
    budget: PrecisionBudget
    batches: Sequence[int]


def judge_candidate(
    rules: Rules,
    bundle: Bundle,
    reference_name: str,
    candidate: Contestant,
    outputs: Outputs,
    before: Sequence[Judgement],
) -> Judgement:
    """The verdict on one model.

    Args:
        rules: limits and budget.
        bundle: for its names and classes.
        reference_name: what it is held against.
        candidate: the model; it is called again, at other batch sizes.
        outputs: what both gave.
        before: judgements so far; a failure of fp32 explains that of the precisions made from it.
    """
    is_full, budget = candidate.precision == FULL, rules.budget
    parity = list(_parity(rules.batches, bundle, reference_name, candidate, outputs))
    accuracy = None
    if outputs.labels is not None:
        accuracy = compare_accuracy(
            outputs.logits[reference_name], outputs.logits[candidate.name], outputs.labels, bundle.spec.classes
        )
    why = outputs.no_labels
    checks = check_limits(rules.limits, parity, accuracy, why) if is_full else [check_finite(parity)]
    checks += check_budget(budget, parity, accuracy, candidate.size_mb, why)
    golden = golden_parity(candidate, bundle, outputs.golden)
    parity.append(golden)
    if is_full:
        checks.append(check_golden(golden, rules.limits.max_abs_relative))
    elif budget.mean_abs_relative is not None:
        checks.append(check_golden(golden, budget.mean_abs_relative, "mean_abs_relative"))
    verdict = verdict_of(checks)
    assert verdict != "NOT JUDGED"  # that the logits are finite is always checked
    return Judgement(
        runner=candidate.name,
        precision=candidate.precision,
        provider=candidate.provider,
        verdict=verdict,
        reason=reason_of(checks),
        native=candidate.native.is_native,
        native_reason=candidate.native.reason,
        computed_in=candidate.native.other or candidate.precision,
        size_mb=candidate.size_mb,
        engine_sha256=candidate.engine_sha256,
        parity=parity,
        accuracy=accuracy,
        checks=checks,
        causes=list(_causes(bundle, reference_name, candidate, outputs, before, checks))
        if verdict == "FAIL"
        else [],
    )


def _parity(
    batches: Sequence[int], bundle: Bundle, reference_name: str, candidate: Contestant, outputs: Outputs
) -> Iterator[Parity]:
    """The candidate against the reference on the same inputs: all of them, then the first in other batches."""
    names = {"reference_name": reference_name, "candidate_name": candidate.name}
    reference_NK = outputs.same_input
    yield compare_outputs(reference_NK, outputs.logits[candidate.name], batch=candidate.batch(BATCH), **names)
    images = len(outputs.first_inputs)
    for batch in candidate.batches(batches):
        candidate_NK = logits_at(candidate, bundle, outputs.first_inputs, batch)
        yield compare_outputs(reference_NK[:images], candidate_NK, batch=batch, **names)


def golden_parity(contestant: Contestant, bundle: Bundle, golden: Golden) -> Parity:
    """A runner against the logits that torch gave for the golden inputs."""
    batch = contestant.batch(min(len(golden.input), BATCH))
    logits_NK = logits_at(contestant, bundle, golden.input, batch)
    return compare_outputs(
        golden.logits, logits_NK, reference_name="golden.npz", candidate_name=contestant.name, batch=batch
    )


def logits_at(contestant: Contestant, bundle: Bundle, inputs_N: Array, batch: int) -> NDArray[Any]:
    """Logits [N, K] of inputs, in calls of `batch`."""
    spec = bundle.spec
    return logits_of(
        contestant.runner, inputs_N, batch=batch, input_name=spec.input_name, output_name=spec.output_name
    )


def _causes(
    bundle: Bundle,
    reference_name: str,
    candidate: Contestant,
    outputs: Outputs,
    before: Sequence[Judgement],
    checks: Sequence[Check],
) -> Iterator[str]:
    """What a failure looks like. What only more images could show has no cause."""
    failed = {check.name for check in checks if check.verdict == "FAIL"} - {"size", "golden logits"}
    if not failed:
        return
    file = bundle.model_path(candidate.precision).name if candidate.kind == "onnxruntime" else candidate.name
    if not failed & _SAME_INPUT and outputs.differing_pixels:
        yield f"{file} agrees with {reference_name} on the same inputs: what is lost comes with the device's input"
        return
    known = explain_logits(outputs.same_input[:_ROWS], outputs.logits[candidate.name][:_ROWS])
    made_from = next((one for one in before if one.precision == FULL and one.provider == candidate.provider), None)
    if known is not None:
        yield f"{file}: {known}"
    elif _takes_bgr(bundle, candidate, outputs):
        yield f"{file}: the model takes its channels in the order BGR; its spec says RGB"
    elif candidate.precision == FULL or made_from is None:
        yield (
            f"{file}: on the very same inputs it gives other logits than {reference_name}; one of its nodes or "
            "weights is another"
        )
    elif made_from.verdict != "FAIL":
        yield f"{file}: model.fp32.onnx passes on the same images, so this comes from the conversion"
    else:
        yield f"{file}: model.fp32.onnx fails on the same images: look there first"


def _takes_bgr(bundle: Bundle, candidate: Contestant, outputs: Outputs) -> bool:
    """Whether the candidate agrees with the reference once the channels are turned round, and not before."""
    inputs_N = outputs.first_inputs
    turned_N = inputs_N[..., ::-1] if bundle.spec.input_layout == "NHWC" else inputs_N[:, ::-1]
    first_N = outputs.same_input[: len(inputs_N)].argmax(axis=1)
    before_N = outputs.logits[candidate.name][: len(inputs_N)].argmax(axis=1)
    after_N = logits_at(candidate, bundle, turned_N, BATCH).argmax(axis=1)
    return bool((after_N == first_N).mean() > 0.9 > (before_N == first_N).mean())
