"""Export of the student: from its weights to the bundle."""

from __future__ import annotations

import shlex

import numpy as np
from torch import nn

from dskd_compress.catalogue.licenses import find_licenses
from dskd_compress.config import ExportSection, Recipe
from dskd_compress.console import Output
from dskd_compress.data import DataSets, iter_images
from dskd_compress.label_space import names_for_device
from dskd_compress.precisions import (
    collect_calibration_facts,
    collect_precision_facts,
    collect_settings,
    draw_calibration,
    list_bundled_precisions,
    list_requested_precisions,
    wrap_for_bundle,
)
from dskd_compress.required_packages import check_tools
from dskd_compress.run_folder import EXPORT, RunFolder, name_tuned_weights, recipe_sha256, writes_run
from dskd_compress.stages.setup import make_pair, open_checked_data
from dskd_compress.teachers.load import TeacherModel, load_teacher
from dskd_compress.teachers.presence import explain_absence
from dskd_compress.torch_runner import TorchRunner
from dskd_compress.weights import WeightsInfo, check_classes, load_trained
from dskd_export.bundle import BundledModel, BundleProvenance, Manifest, write_bundle
from dskd_export.bundle.golden import Golden
from dskd_export.bundle.manifest import weights_name
from dskd_export.documents.export import ExportDocument
from dskd_export.documents.precision import Precision
from dskd_export.errors import DataError, ModelError
from dskd_export.files.atomic import sha256_file
from dskd_export.onnx_from_torch import Exported, onnx_from_torch, wrap_for_deployment
from dskd_export.precision.build import PrecisionModel, build_precision
from dskd_export.provenance import Stopwatch, versions
from dskd_export.runtime.batches import logits_of
from dskd_export.runtime.images import pixel_sha256
from dskd_export.runtime.preprocess import preprocess_batch
from dskd_export.spec import ModelSpec

TEACHER_ONNX = "teacher.fp32.onnx"


def make_spec(info: WeightsInfo, section: ExportSection, student_sha256: str) -> ModelSpec:
    """Make the model spec of a student."""
    classes, descriptions = names_for_device(info.classes)
    return ModelSpec(
        architecture=info.name,
        input_dtype=section.input,
        input_layout=section.layout,
        output_name="probabilities" if section.softmax else "logits",
        height=info.input_size[1],
        width=info.input_size[2],
        dynamic_size=section.dynamic_size,
        **info.model_dump(include={"mean", "std", "interpolation", "crop_pct", "crop_mode"}),
        exif=info.exif,
        classes=classes,
        class_descriptions=descriptions,
        opset=section.opset,
        student_sha256=student_sha256,
    )


def make_teacher_spec(
    recipe: Recipe, sets: DataSets, teacher: TeacherModel, student: nn.Module, info: WeightsInfo
) -> ModelSpec:
    """Make the model spec of the exported teacher: normalised images in, logits out."""
    size = make_pair(student, info.preprocessing, teacher).teacher_size
    of_teacher = WeightsInfo.of(recipe.teacher, sets.classes, teacher.format, sets.exif)
    plain = ExportSection(opset=recipe.export.opset, exporter=recipe.export.exporter)
    return make_spec(of_teacher.model_copy(update={"input_size": size}), plain, "")


@writes_run
def run_export(recipe: Recipe, folder: RunFolder, output: Output) -> Manifest:
    """Export the student (and the teacher, to compare it); writes `bundle/` and `teacher.fp32.onnx`.

    Raises:
        DataError: there is no student yet, or the data has other classes than it was trained on.
        ModelError: torch cannot export it.
        MissingExtra: onnx, or what makes a precision, is not installed.
    """
    check_tools(recipe, [EXPORT])
    watch = Stopwatch()
    path = folder.require("student.safetensors", "distill")
    inputs = folder.inputs(EXPORT, recipe)
    student, info = load_trained(path)
    section = recipe.export
    spec = make_spec(info, section, inputs["student.safetensors"])
    sets = open_checked_data(recipe, output, every_class=False)
    facts = sets.facts()
    check_classes(info.classes, sets, path, "distill")
    wanted = list_requested_precisions(section)
    images = draw_calibration(recipe, sets, spec) if wanted else None
    has_teacher = explain_absence(recipe, folder) is None
    with_teacher = section.teacher and has_teacher
    with output.progress("Exporting", 2 + len(wanted) + with_teacher, unit="file") as progress:
        golden = _make_golden(recipe, sets, student, spec)
        exported = onnx_from_torch(
            student, spec, exporter=section.exporter, slim=section.slim, images=golden.input
        )
        progress.advance(1)
        built: dict[Precision, PrecisionModel] = {}
        for precision in wanted:
            assert images is not None
            progress.update(description=f"Exporting {precision}")
            tuned = _export_tuned(recipe, folder, spec, precision, golden)
            calibration = images.calibration
            built[precision] = build_precision(
                _require_one_file(tuned or exported),
                precision,
                calibration,
                calibration.first(section.quantize.search_images),  # the search scores on the first of them
                collect_settings(section),
            )
            progress.advance(1)
        installed = versions()
        dropped = [name for name in list_bundled_precisions(folder) if name not in ("fp32", *built)]
        if dropped:
            output.print(f"No longer in the bundle: {', '.join(dropped)}")
        folder.keep(recipe, (EXPORT,))  # a kill after the next line leaves models that the run's recipe names
        manifest = write_bundle(
            folder.bundle,
            spec=spec,
            models={
                "fp32": BundledModel(
                    exported.model.proto,
                    producer=f"torch.onnx {section.exporter} {installed['torch']}",
                    weights=exported.model.weights,
                    details=exported.provenance(),
                ),
                **{precision: wrap_for_bundle(one) for precision, one in built.items()},
            },
            golden=golden,
            calibration=None if images is None else collect_calibration_facts(built, images, section),
            provenance=BundleProvenance(
                student=info.name,
                student_sha256=spec.student_sha256,
                teacher=recipe.teacher.name if has_teacher else None,
                teacher_weights=_teacher_weights(recipe) if has_teacher else None,
                method=recipe.method.name,
                recipe=recipe.name,
                recipe_sha256=recipe_sha256(recipe),
                seed=recipe.seed,
                data_sha256=facts.sha256,
                versions=installed,
                licenses=find_licenses(recipe),
                target=section.target,
            ),
        )
        progress.advance(1)
        if with_teacher:
            teacher = load_teacher(recipe, folder, sets)
            onnx_from_torch(
                teacher.model,
                make_teacher_spec(recipe, sets, teacher, student, info),
                exporter=section.exporter,
                metadata={"role": "teacher, for comparison only", "architecture": recipe.teacher.name},
                file_name=TEACHER_ONNX,
            ).model.write(folder.path)
            progress.advance(1)
        else:
            for name in (TEACHER_ONNX, weights_name(TEACHER_ONNX)):
                (folder / name).unlink(missing_ok=True)
    provenance = watch.provenance(seed=recipe.seed, device="cpu", recipe_sha256=recipe_sha256(recipe))
    document = ExportDocument(
        target=section.target,
        precisions=[collect_precision_facts(one) for one in built.values()],
        calibration_images=None if images is None else len(images.calibration),
        left_out_images=None if images is None else images.left_out,
        bundle_sha256=sha256_file(folder.bundle / "manifest.json"),
        provenance=provenance,
    )
    folder.write_document("export.json", document)
    folder.record_stage(EXPORT, recipe, provenance, inputs, facts.sha256)
    return manifest


def _teacher_weights(recipe: Recipe) -> str:
    """Name the origin of the teacher's weights, without a path."""
    section = recipe.teacher
    start = "a checkpoint of one's own" if section.checkpoint else "pretrained" if section.pretrained else "random"
    return f"{start}, then trained on the data" if section.train is not None else start


def _export_tuned(
    recipe: Recipe, folder: RunFolder, spec: ModelSpec, precision: Precision, golden: Golden
) -> Exported | None:
    """Export the student that was tuned for a precision in fp32; None where none was."""
    path = folder / name_tuned_weights(precision)
    if recipe.tune is None or recipe.tune.precision != precision:
        return None
    if not path.exists():
        raise DataError(
            f"{path} is missing, and the recipe tunes the student for {precision}.",
            f"Make it: dskd-compress tune {shlex.quote(str(folder.path))}; or leave it out: --set tune=null",
        )
    student, _ = load_trained(path)
    section = recipe.export
    return onnx_from_torch(student, spec, exporter=section.exporter, slim=section.slim, images=golden.input)


def _require_one_file(exported: Exported) -> bytes:
    """Return the model that other precisions are made from; its weights have to fit one protobuf."""
    if exported.model.weights is not None:
        raise ModelError(
            f"The model has {exported.model.size_bytes / 1e9:.1f} GB; other precisions are made of up to 1.9 GB.",
            "Export it in fp32 only: --precision fp32",
        )
    return exported.model.proto


def _make_golden(recipe: Recipe, sets: DataSets, student: nn.Module, spec: ModelSpec) -> Golden:
    """Compute torch's fp32 logits of validation images after the torch-free preprocessing."""
    chosen = list(
        iter_images(sets.val, recipe.export.golden_images, recipe.seed, max_unreadable=sets.max_unreadable)
    )
    images = [image for image, _, _ in chosen]
    inputs = preprocess_batch(images, spec)
    with TorchRunner(
        wrap_for_deployment(student, spec), input_name=spec.input_name, output_name=spec.output_name
    ) as runner:
        logits_BK = logits_of(
            runner, inputs, batch=len(inputs), input_name=spec.input_name, output_name=spec.output_name
        )
    return Golden(
        input=inputs,
        logits=np.asarray(logits_BK, dtype=np.float32),
        labels=np.array([label for _, label, _ in chosen], dtype=np.int64),
        image_sha256=np.array([pixel_sha256(image) for image in images]),
    )
