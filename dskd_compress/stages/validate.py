"""Hold the exported student against torch, on real images, and judge it by the recipe's limits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dskd_compress.config import Recipe
from dskd_compress.console import Output
from dskd_compress.data import ImageSet, StreamSet, eval_transform, iter_images
from dskd_compress.provenance import Stopwatch
from dskd_compress.run_folder import VALIDATE, RunFolder, recipe_sha256
from dskd_compress.stages.setup import check_classes, open_checked_data
from dskd_compress.torch_runner import TorchRunner
from dskd_compress.weights import load_trained
from dskd_export.bundle import open_bundle
from dskd_export.compare import Limits, compare_outputs, compare_preprocess, compare_runners, gate
from dskd_export.documents import PreprocessParity, ValidationDocument
from dskd_export.errors import BundleError, DataError
from dskd_export.evaluate import accuracy_of
from dskd_export.files import sha256_file
from dskd_export.onnx_from_torch import deployed
from dskd_export.runtime.batches import logits_of
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner
from dskd_export.runtime.preprocess import preprocess_batch, resize_and_crop
from dskd_export.runtime.runner import Array, Runner

# Large enough to fill the cores, small enough for any memory; accuracy does not depend on it.
_BATCH = 64


def run_validate(recipe: Recipe, folder: RunFolder, output: Output) -> ValidationDocument:
    """Validate the bundle of a run; writes `validation.json`. The caller judges `passed`.

    The images are read once and dropped, so the memory does not grow with their number.

    Raises:
        DataError: there is no bundle, it is not of this student, or its classes are not those of the data.
        MissingExtra: ONNX Runtime is not installed.
    """
    watch = Stopwatch()
    section = recipe.validation
    weights = folder.require("student.safetensors", "distill")
    folder.require("bundle/manifest.json", "export")
    bundle = open_bundle(folder.bundle)
    if bundle.spec.student_sha256 != sha256_file(weights):
        raise BundleError(
            f"{folder.bundle} was exported from another student than {weights}.",
            f"Export it again: dskd-compress export {folder.path}",
        )
    student, info = load_trained(weights)
    sets = open_checked_data(recipe)
    check_classes(info.classes, sets, weights, "distill")
    skipped: list[str] = []
    images = iter_images(
        sets.val, section.images, recipe.seed, max_unreadable=sets.max_unreadable, skipped=skipped
    )
    to_uint8 = eval_transform(info.preprocessing, normalise=False)
    labels: list[int] = []
    inputs: list[Array] = []  # the first ones, for parity at other batch sizes
    preprocessing: list[PreprocessParity] = []
    names = {"input_name": bundle.spec.input_name, "output_name": bundle.spec.output_name}
    # Normalised as the student was trained, whatever the bundle says.
    reference_spec = bundle.spec.model_copy(update={"mean": info.mean, "std": info.std})
    with (
        TorchRunner(
            deployed(student, reference_spec), input_name=names["input_name"], output_name=names["output_name"]
        ) as reference,
        OnnxRuntimeRunner(bundle.model_path("fp32")) as candidate,
    ):
        runners: tuple[Runner, Runner] = (reference, candidate)
        logits: dict[str, list[NDArray[Any]]] = {runner.name: [] for runner in runners}
        with output.progress("Validating", _count(sets.val, section.images), unit="image") as progress:
            while chunk := list(islice(images, _BATCH)):
                labels += [label for _, label, _ in chunk]
                of_timm = (np.asarray(to_uint8(image)).transpose(1, 2, 0) for image, _, _ in chunk)
                of_device = (resize_and_crop(image, bundle.spec) for image, _, _ in chunk)
                preprocessing.append(compare_preprocess(of_timm, of_device, bundle.spec.std))
                input_BCHW = preprocess_batch([image for image, _, _ in chunk], bundle.spec)
                for runner in runners:
                    logits[runner.name].append(logits_of(runner, input_BCHW, batch=_BATCH, **names))
                if len(inputs) * _BATCH < max(section.batches):
                    inputs.append(input_BCHW)
                progress.advance(len(chunk))
        if not labels:
            raise DataError(f"{sets.source}: the validation set gave no images.", "Check data.val_split.")
        of_all = {name: np.concatenate(parts) for name, parts in logits.items()}
        parity = [
            compare_outputs(
                *of_all.values(), reference_name=reference.name, candidate_name=candidate.name, batch=_BATCH
            )
        ]
        input_NCHW = np.concatenate(inputs)
        parity += [
            compare_runners(reference, candidate, input_NCHW, batch=batch, **names) for batch in section.batches
        ]
    labels_N = np.array(labels, dtype=np.int64)
    accuracy = {name: accuracy_of(logits_NK, labels_N) for name, logits_NK in of_all.items()}
    together = join_preprocess(preprocessing)
    limits = Limits(**section.model_dump(exclude={"images", "batches"}))
    checks = gate(limits, parity, accuracy, together, reference=reference.name, candidate=candidate.name)
    provenance = watch.provenance(seed=recipe.seed, device="cpu", recipe_sha256=recipe_sha256(recipe))
    facts = sets.facts(skipped)
    document = ValidationDocument(
        parity=parity,
        accuracy=accuracy,
        preprocess=together,
        checks=checks,
        passed=all(check.passed for check in checks),
        data=facts,
        bundle_sha256=bundle.sha256,
        provenance=provenance,
    )
    folder.write_document("validation.json", document)
    folder.record_stage(VALIDATE, recipe, provenance, facts.sha256)
    return document


def _count(images: ImageSet | StreamSet, limit: int | None) -> int:
    """Images to come; 0 for a stream that does not tell."""
    there = images.length if isinstance(images, StreamSet) else len(images)
    return min(there, limit) if there is not None and limit is not None else there or limit or 0


def join_preprocess(parts: Sequence[PreprocessParity]) -> PreprocessParity:
    """Comparisons of several lots of images, as one of all of them."""
    return PreprocessParity(
        images=sum(part.images for part in parts),
        max_abs_pixel=max(part.max_abs_pixel for part in parts),
        max_abs_normalised=max(part.max_abs_normalised for part in parts),
        differing_pixels=sum(part.differing_pixels for part in parts),
    )
