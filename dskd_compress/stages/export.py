"""From the student's weights to the bundle."""

from __future__ import annotations

import hashlib

import numpy as np
from torch import nn

from dskd_compress.config import Recipe
from dskd_compress.console import Output
from dskd_compress.data import DataSets, iter_images
from dskd_compress.provenance import Stopwatch, versions
from dskd_compress.run_folder import EXPORT, RunFolder, recipe_sha256, tuned_weights
from dskd_compress.stages.licenses import licenses_of
from dskd_compress.stages.precisions import (
    build,
    bundled,
    calibration_facts,
    draw_calibration,
    precision_facts,
    wanted_precisions,
)
from dskd_compress.stages.setup import check_classes, load_teacher, make_pair, open_checked_data
from dskd_compress.torch_runner import TorchRunner
from dskd_compress.weights import WeightsInfo, load_trained
from dskd_export.bundle import BundledModel, BundleProvenance, Manifest, write_bundle
from dskd_export.errors import DataError, require
from dskd_export.export_document import ExportDocument
from dskd_export.files import sha256_file, write_atomic
from dskd_export.golden import Golden
from dskd_export.onnx_from_torch import onnx_from_torch
from dskd_export.precision.build import Built
from dskd_export.precision_metadata import Precision
from dskd_export.runtime.preprocess import preprocess_batch
from dskd_export.spec import ModelSpec


def spec_of(info: WeightsInfo, opset: int, student_sha256: str) -> ModelSpec:
    """What the device needs to know of a student."""
    return ModelSpec(
        architecture=info.name,
        height=info.input_size[1],
        width=info.input_size[2],
        mean=info.mean,
        std=info.std,
        interpolation=info.interpolation,
        crop_pct=info.crop_pct,
        crop_mode=info.crop_mode,
        classes=info.classes,
        opset=opset,
        student_sha256=student_sha256,
    )


def run_export(recipe: Recipe, folder: RunFolder, output: Output) -> Manifest:
    """Export the student (and the teacher, to compare it); writes `bundle/` and `teacher.fp32.onnx`.

    Raises:
        DataError: there is no student yet, or the data has other classes than it was trained on.
        ModelError: torch cannot export it.
        MissingExtra: onnx is not installed.
    """
    for module in ("onnx", "onnxscript"):
        require(module, "onnx")
    watch = Stopwatch()
    path = folder.require("student.safetensors", "distill")
    student, info = load_trained(path)
    spec = spec_of(info, recipe.export.opset, sha256_file(path))
    sets = open_checked_data(recipe, every_class=False)
    check_classes(info.classes, sets, path, "distill")
    teacher_path = folder / "teacher.fp32.onnx"
    wanted = wanted_precisions(recipe.export)
    images = draw_calibration(recipe, sets, spec) if wanted else None
    with output.progress("Exporting", 2 + len(wanted) + recipe.export.teacher, unit="file") as progress:
        model = onnx_from_torch(student, input_size=info.input_size, opset=spec.opset, metadata=spec.to_metadata())
        progress.advance(1)
        golden = _golden(recipe, sets, student, spec)
        facts, installed = sets.facts(), versions()
        built: dict[Precision, Built] = {}
        for precision in wanted:
            assert images is not None
            progress.update(description=f"Exporting {precision}")
            source = _tuned(recipe, folder, spec, precision) or model
            built[precision] = build(source, precision, recipe.export, images)
            progress.advance(1)
        manifest = write_bundle(
            folder.bundle,
            spec=spec,
            models={
                "fp32": BundledModel(model, producer=f"torch.onnx dynamo {installed['torch']}"),
                **{precision: bundled(one) for precision, one in built.items()},
            },
            golden=golden,
            calibration=calibration_facts(built, images, recipe.export) if built and images is not None else None,
            provenance=BundleProvenance(
                student=info.name,
                student_sha256=spec.student_sha256,
                teacher=recipe.teacher.name,
                teacher_weights=_teacher_weights(recipe),
                method=recipe.method.name,
                recipe=recipe.name,
                recipe_sha256=recipe_sha256(recipe),
                seed=recipe.seed,
                data_sha256=facts.sha256,
                versions=installed,
                licenses=licenses_of(recipe),
            ),
        )
        progress.advance(1)
        if recipe.export.teacher:
            teacher = load_teacher(recipe, folder, sets)
            teacher_onnx = onnx_from_torch(
                teacher.model,
                input_size=make_pair(student, info.preprocessing, teacher).teacher_size,
                opset=recipe.export.opset,
                metadata={"role": "teacher, for comparison only", "architecture": recipe.teacher.name},
            )
            write_atomic(teacher_path, teacher_onnx)
            progress.advance(1)
        else:
            teacher_path.unlink(missing_ok=True)
    provenance = watch.provenance(seed=recipe.seed, device="cpu", recipe_sha256=recipe_sha256(recipe))
    document = ExportDocument(
        target=recipe.export.target,
        precisions=[precision_facts(one, recipe.export.quantize.search_images) for one in built.values()],
        calibration_images=None if images is None else len(images.calibration),
        left_out_images=None if images is None else images.left_out,
        bundle_sha256=sha256_file(folder.bundle / "manifest.json"),
        provenance=provenance,
    )
    folder.write_document("export.json", document)
    folder.record_stage(EXPORT, recipe, provenance, facts.sha256)
    return manifest


def _teacher_weights(recipe: Recipe) -> str:
    """Where the weights of the teacher come from, without a path."""
    section = recipe.teacher
    start = "a checkpoint of one's own" if section.checkpoint else "pretrained" if section.pretrained else "random"
    return f"{start}, then trained on the data" if section.train is not None else start


def _tuned(recipe: Recipe, folder: RunFolder, spec: ModelSpec, precision: Precision) -> bytes | None:
    """The fp32 model of the student that was tuned for a precision; None where none was."""
    path = folder / tuned_weights(precision)
    if recipe.tune is None or recipe.tune.precision != precision:
        return None
    if not path.exists():
        raise DataError(
            f"{path} is missing, and the recipe tunes the student for {precision}.",
            f"Make it first: dskd-compress tune {folder.path}, or leave it out: --set tune=null",
        )
    student, info = load_trained(path)
    return onnx_from_torch(student, input_size=info.input_size, opset=spec.opset, metadata=spec.to_metadata())


def _golden(recipe: Recipe, sets: DataSets, student: nn.Module, spec: ModelSpec) -> Golden:
    """Real validation images through the torch-free preprocessing, with torch's fp32 logits."""
    chosen = list(iter_images(sets.val, recipe.export.golden_images, recipe.seed))
    images = [image for image, _, _ in chosen]
    input_BCHW = preprocess_batch(images, spec)
    with TorchRunner(student) as runner:
        logits_BK = runner.infer({"input": input_BCHW})["logits"]
    return Golden(
        input=input_BCHW,
        logits=np.asarray(logits_BK, dtype=np.float32),
        labels=np.array([label for _, label, _ in chosen], dtype=np.int64),
        image_sha256=np.array([hashlib.sha256(image.tobytes()).hexdigest() for image in images]),
    )
