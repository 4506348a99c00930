"""Hold a bundle's models against what torch gave for its golden images, and against fp32 on images at hand.

Without torch there are two references. The golden logits in the bundle are torch's own, of a few real
images: ONNX Runtime in fp32 on the CPU has to reproduce them. It then is the reference for all others,
on as many labelled images as there are; where there are none, they too are held to the golden logits.

Shape suffixes: B or N images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dskd_export.bundle import Bundle
from dskd_export.bundle.golden import Golden
from dskd_export.documents.base import DataFacts
from dskd_export.documents.runner_name import RunnerName
from dskd_export.documents.validation import Check, Judgement, ValidationDocument
from dskd_export.errors import DataError, UsageError
from dskd_export.provenance import Stopwatch
from dskd_export.runtime.batches import logits_of
from dskd_export.runtime.images import pixel_sha256
from dskd_export.runtime.labelled_images import LabelledImages
from dskd_export.runtime.preprocess import preprocess_batch
from dskd_export.runtime.runner import Array
from dskd_export.validation.accuracy import accuracy_of
from dskd_export.validation.candidates import (
    FULL,
    Contest,
    Contestant,
    engines_for,
    in_order,
    named_providers,
    open_candidates,
    open_engines,
    open_named_engine,
    open_onnx,
)
from dskd_export.validation.causes import explain_labels, explain_logits
from dskd_export.validation.gate import IS_REFERENCE, check_count, check_golden
from dskd_export.validation.golden_images import GoldenImages, check_golden_images
from dskd_export.validation.judgement import BATCH, Outputs, Rules, golden_parity, judge_candidate, logits_at
from dskd_export.validation.student import NO_TEACHER_IN_BUNDLE, TeacherOutputs, judge_student
from dskd_export.validation.verdicts import conclude

GOLDEN = "golden.npz"
REFERENCE = RunnerName.of("onnxruntime", "cpu", FULL)


@dataclass(frozen=True)
class Settings:
    """What is validated.

    Attributes:
        runners: `onnxruntime`, `tensorrt`; of the latter alone, an engine that can be run has to be there.
        engines: folder of the bundle's engines.
        precisions: None: all that the bundle holds and that can run here.
        providers: `auto`, `cpu`, `cuda`, `tensorrt`.
        allow_cpu: operators that may run on the CPU under another provider.
        pair: names of a reference and a candidate in place of all these.
        batches: sizes of the calls that are compared.
        max_unreadable: share of images that need not be readable.
        student_drop: accuracy that the student may have less than its teacher; None: not judged.
        seed: for the record.
        recipe_sha256: for the record.
    """

    runners: Sequence[str]
    engines: Path
    precisions: Sequence[str] | None
    providers: Sequence[str]
    allow_cpu: Sequence[str]
    pair: tuple[RunnerName, RunnerName] | None
    batches: Sequence[int]
    max_unreadable: float
    student_drop: float | None
    seed: int
    recipe_sha256: str


def validate_bundle(
    bundle: Bundle,
    settings: Settings,
    rules_of: Callable[[str], Rules],
    images: LabelledImages | None,
    on_images: Callable[[int], object],
) -> ValidationDocument:
    """Validate a bundle; nothing is written. The caller judges `passed`.

    Args:
        bundle: the models.
        settings: what of them.
        rules_of: precision -> what it is held to.
        images: with labels; None: the golden images alone, and no accuracy.
        on_images: told of every few images that are done.

    Raises:
        DataError: there are no images, or too many of them cannot be read.
        EnvironmentProblem: a provider or a precision that was asked for cannot be run here.
        MissingExtra: ONNX Runtime is not installed.
        UsageError: the bundle does not hold a precision that was asked for.
    """
    watch = Stopwatch()
    golden = bundle.golden()
    with ExitStack() as stack:
        contest = _open(settings, bundle, stack)
        reference = contest.reference
        limits = rules_of(FULL).limits
        check = check_golden(golden_parity(reference, bundle, golden), limits.max_abs_relative)
        checks, causes = [check], list(_golden_causes(check, reference, bundle, golden))
        of_golden = _on_golden(contest, bundle, golden, of_torch=settings.pair is None)
        on_images(len(golden.labels))
        of_images, skipped = None, list[str]()
        if images is not None:
            seen = GoldenImages(golden)
            of_images = _on_images(contest, bundle, images, settings, seen, skipped, on_images)
            assert of_images.labels is not None
            shifted = explain_labels(of_images.logits[reference.name], of_images.labels)
            checks += [
                check_golden_images(len(seen.labels), len(golden.labels), seen.unlike()),
                check_count("labels", [shifted] if shifted else [], "no shift of the classes fits better"),
            ]
            causes += [shifted] if shifted else []
        judgements: list[Judgement] = []
        for candidate in contest.candidates:
            alone = of_images is None or candidate is reference
            name = GOLDEN if alone and settings.pair is None else reference.name
            outputs = of_golden if alone or of_images is None else of_images
            if of_images is not None and candidate is reference:
                outputs = replace(of_golden, no_labels=IS_REFERENCE)
            rules = rules_of(candidate.precision)
            judgements.append(judge_candidate(rules, bundle, name, candidate, outputs, judgements))
    judgements += contest.not_run
    student = None
    if settings.pair is None:
        student = judge_student(
            None if of_images is None else of_images.logits[reference.name],
            None if of_images is None else of_images.labels,
            bundle.spec.classes,
            TeacherOutputs(None, NO_TEACHER_IN_BUNDLE),
            settings.student_drop,
        )
    verdict, reason = conclude(student, checks, judgements)
    on_gpu = any(one.provider != "cpu" for one in contest.all)
    accuracy = {}
    if of_images is not None and of_images.labels is not None:
        accuracy = {name: accuracy_of(logits_NK, of_images.labels) for name, logits_NK in of_images.logits.items()}
    return ValidationDocument(
        verdict=verdict,
        reason=reason,
        student=student,
        reference=GOLDEN if images is None and settings.pair is None else reference.name,
        accuracy=accuracy,
        judgements=judgements,
        preprocess=None,
        checks=checks,
        causes=causes,
        passed=verdict == "PASS",
        data=_golden_facts(bundle) if images is None else images.facts(skipped),
        bundle_sha256=bundle.sha256,
        provenance=watch.provenance(
            seed=settings.seed, device="cuda:0" if on_gpu else "cpu", recipe_sha256=settings.recipe_sha256
        ),
    )


def _open(settings: Settings, bundle: Bundle, stack: ExitStack) -> Contest:
    """The reference is opened in any case, and judged where it was asked for."""
    how: dict[str, Any] = {"allow_cpu": settings.allow_cpu, "batches": (*settings.batches, BATCH)}
    if settings.pair is not None:
        return _open_pair(settings.pair, settings, bundle, stack, how)
    with_onnx = "onnxruntime" in settings.runners
    providers = named_providers(settings.providers) if with_onnx else []
    reference = open_onnx(bundle, "cpu", FULL, stack, **how)
    candidates: list[Contestant] = []
    not_run: list[Judgement] = []
    if with_onnx:
        precisions = settings.precisions or in_order(bundle.precisions)
        wanted = [(precision, provider) for precision in precisions for provider in providers]
        others = [one for one in wanted if one != (FULL, "cpu")]
        candidates, not_run = open_candidates(bundle, others, stack, asked=settings.precisions is not None, **how)
        candidates = [reference, *candidates] if others != wanted else candidates
    if "tensorrt" in settings.runners:
        found = engines_for(settings.engines, bundle, settings.precisions, settings.runners)
        opened, refused = open_engines(found, stack)
        candidates, not_run = [*candidates, *opened], [*not_run, *refused]
    return Contest(reference, candidates, not_run)


def _open_pair(
    pair: tuple[RunnerName, RunnerName], settings: Settings, bundle: Bundle, stack: ExitStack, how: dict[str, Any]
) -> Contest:
    if pair[0] == pair[1]:
        raise UsageError(f"{pair[0]} cannot be compared with itself.", "Name two runners with --pair.")
    opened = []
    for name in pair:
        kind, provider, precision = name.kind, name.provider, name.precision
        if kind == "torch":
            raise UsageError(
                f"{name} cannot be asked for: a bundle is validated without torch.",
                "Name runners of onnxruntime or tensorrt, or validate the run folder.",
            )
        if kind == "tensorrt":
            opened.append(open_named_engine(settings.engines, bundle, precision, stack))
        else:
            opened.append(open_onnx(bundle, provider, precision, stack, **how))
    return Contest(opened[0], [opened[1]])


def _on_golden(contest: Contest, bundle: Bundle, golden: Golden, *, of_torch: bool) -> Outputs:
    """All runners on the golden inputs, held against torch's logits of them or the reference's."""
    logits = {one.name: logits_at(one, bundle, golden.input, BATCH) for one in contest.all}
    own = logits[contest.reference.name]
    return Outputs(
        labels=None,
        logits=logits,
        same_input=golden.logits if of_torch else own,
        first_inputs=golden.input,
        golden=golden,
    )


def _on_images(
    contest: Contest,
    bundle: Bundle,
    images: LabelledImages,
    settings: Settings,
    seen: GoldenImages,
    skipped: list[str],
    on_images: Callable[[int], object],
) -> Outputs:
    """Call every runner on all images, once; of the images only a few inputs are kept."""
    spec = bundle.spec
    names = {"input_name": spec.input_name, "output_name": spec.output_name}
    runners = list({one.name: one for one in contest.all}.values())
    labels: list[NDArray[np.int64]] = []
    logits: dict[str, list[NDArray[Any]]] = {one.name: [] for one in runners}
    first: list[Array] = []
    decoded = images.read(skipped, settings.max_unreadable)
    for chunk in _chunks(decoded, BATCH):
        inputs_B = preprocess_batch([image for image, _ in chunk], spec)
        labels_B = np.array([label for _, label in chunk], np.int64)
        seen.find([pixel_sha256(image) for image, _ in chunk], labels_B, inputs_B)
        labels.append(labels_B)
        if len(first) * BATCH < max(settings.batches):
            first.append(inputs_B)
        for one in runners:
            logits[one.name].append(logits_of(one.runner, inputs_B, batch=BATCH, **names))
        on_images(len(chunk))
    if not labels:
        raise DataError(f"{images.folder} gave no images.", "Name a folder of labelled images with --images.")
    of_all = {name: np.concatenate(parts) for name, parts in logits.items()}
    return Outputs(
        labels=np.concatenate(labels),
        logits=of_all,
        same_input=of_all[contest.reference.name],
        first_inputs=np.concatenate(first),
        golden=seen.golden,
    )


def _chunks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(islice(items, size)):
        yield chunk


def _golden_causes(check: Check, reference: Contestant, bundle: Bundle, golden: Golden) -> Iterator[str]:
    if check.failed:
        known = explain_logits(golden.logits, logits_at(reference, bundle, golden.input, BATCH))
        what = f"{reference.name} does not give here what torch gave for the golden images"
        yield f"{what}: {known}" if known else what


def _golden_facts(bundle: Bundle) -> DataFacts:
    return DataFacts(
        source=f"{GOLDEN} of the bundle",
        sha256=bundle.manifest.files[GOLDEN].sha256,
        sha256_of="content",
        train_images=None,
        val_images=len(bundle.golden().labels),
        classes=list(bundle.spec.classes),
    )
