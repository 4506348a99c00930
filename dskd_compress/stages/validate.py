"""Hold the exported student against torch, on real images, and judge it by the recipe's limits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dskd_compress.config import Recipe
from dskd_compress.console import Output
from dskd_compress.data import eval_transform, iter_images
from dskd_compress.provenance import Stopwatch
from dskd_compress.run_folder import VALIDATE, RunFolder, recipe_sha256
from dskd_compress.stages.setup import open_checked_data
from dskd_compress.torch_runner import TorchRunner
from dskd_compress.weights import load_trained
from dskd_export.bundle import open_bundle
from dskd_export.compare import Limits, compare_outputs, compare_preprocess, compare_runners, gate
from dskd_export.documents import ValidationDocument
from dskd_export.errors import BundleError
from dskd_export.evaluate import accuracy_of
from dskd_export.files import sha256_file
from dskd_export.runtime.batches import logits_of
from dskd_export.runtime.onnxruntime import OnnxRuntimeRunner
from dskd_export.runtime.preprocess import preprocess, resize_and_crop
from dskd_export.runtime.runner import Runner

# Large enough to fill the cores, small enough for any memory; accuracy does not depend on it.
_BATCH = 64


def run_validate(recipe: Recipe, folder: RunFolder, output: Output) -> ValidationDocument:
    """Validate the bundle of a run; writes `validation.json`. The caller judges `passed`.

    Raises:
        DataError: there is no bundle, or it is not of this student.
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
    skipped: list[str] = []
    images, labels = [], []
    for image, label, _ in iter_images(
        sets.val, section.images, recipe.seed, max_unreadable=sets.max_unreadable, skipped=skipped
    ):
        images.append(image)
        labels.append(label)
    labels_N = np.array(labels, dtype=np.int64)

    with output.progress("Validating", 3 + len(section.batches), unit="step") as progress:
        to_uint8 = eval_transform(info.preprocessing, normalise=False)
        of_timm = (_hwc(np.asarray(to_uint8(image))) for image in images)
        of_device = (resize_and_crop(image, bundle.spec) for image in images)
        preprocessing = compare_preprocess(of_timm, of_device, bundle.spec.std)
        input_NCHW = np.stack([preprocess(image, bundle.spec) for image in images])
        progress.advance(1)
        with TorchRunner(student) as reference, OnnxRuntimeRunner(bundle.model_path("fp32")) as candidate:
            runners: tuple[Runner, Runner] = (reference, candidate)
            logits = []
            for runner in runners:
                logits.append(logits_of(runner, input_NCHW, batch=_BATCH))
                progress.advance(1)
            parity = [
                compare_outputs(
                    *logits, reference_name=reference.name, candidate_name=candidate.name, batch=_BATCH
                )
            ]
            for batch in section.batches:
                subset_NCHW = input_NCHW[: max(64, batch)]
                parity.append(compare_runners(reference, candidate, subset_NCHW, batch=batch))
                progress.advance(1)
            accuracy = {
                runner.name: accuracy_of(logits_NK, labels_N)
                for runner, logits_NK in zip(runners, logits, strict=True)
            }
            limits = Limits(**section.model_dump(exclude={"images", "batches"}))
            checks = gate(
                limits, parity, accuracy, preprocessing, reference=reference.name, candidate=candidate.name
            )
    provenance = watch.provenance(seed=recipe.seed, device="cpu", recipe_sha256=recipe_sha256(recipe))
    facts = sets.facts(skipped)
    document = ValidationDocument(
        parity=parity,
        accuracy=accuracy,
        preprocess=preprocessing,
        checks=checks,
        passed=all(check.passed for check in checks),
        data=facts,
        bundle_sha256=bundle.sha256,
        provenance=provenance,
    )
    folder.write_document("validation.json", document)
    folder.record_stage(VALIDATE, recipe, provenance, facts.sha256)
    return document


def _hwc(image_CHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image_CHW.transpose(1, 2, 0)
