"""Train the student from the teacher."""

from __future__ import annotations

from functools import partial

from rich.markup import escape

from dskd_compress.config import Recipe
from dskd_compress.console import Output
from dskd_compress.methods import create_task, statistics_batches
from dskd_compress.models import has_pretrained_weights, model_facts, state_sha256
from dskd_compress.run_folder import DISTILL, TEACHER_PROBE, RunFolder, recipe_sha256
from dskd_compress.stages.session import Loaders, train
from dskd_compress.stages.setup import (
    create_student,
    decide_student_start,
    make_pair,
    open_checked_data,
    report_student_start,
    set_student_start,
    warn_of_orientation,
)
from dskd_compress.teachers.cache.plan import TeacherCache
from dskd_compress.teachers.classes import make_class_map_option
from dskd_compress.teachers.evaluation import (
    TeacherEvaluation,
    describe_teacher,
    explain_below_known,
    is_below_known,
)
from dskd_compress.teachers.fit import decide_fit
from dskd_compress.teachers.load import load_own_teacher, load_teacher
from dskd_compress.teachers.normalisation import compare_normalisations
from dskd_compress.teachers.presence import explain_absence
from dskd_compress.teachers.probe import ensure_probe
from dskd_compress.training.device import configure
from dskd_compress.training.diagnosis import Diagnosis, Formats, as_error, changed_symptom
from dskd_compress.training.distributed import Group, join
from dskd_compress.training.trackers import check_trackers
from dskd_compress.weights import WeightsInfo, save_weights
from dskd_export.documents.base import read_document
from dskd_export.documents.training import TrainingDocument
from dskd_export.files.atomic import sha256_file
from dskd_export.provenance import Stopwatch


def run_distill(recipe: Recipe, folder: RunFolder, output: Output) -> TrainingDocument:
    """Train the student; writes `student.safetensors`, `distill.json` and `train.jsonl`.

    Under torchrun all processes train and get the document; one of them writes.

    Raises:
        DataError, ModelError, EnvironmentProblem: see the message.
        DiagnosisError: a fault that `diagnosis.stop_on` names.
    """
    watch = Stopwatch()
    check_trackers(recipe.tracking)
    with join(recipe.train) as group, folder.writing(output.warn):
        return _distill(recipe, folder, output, group, watch)


def _distill(
    recipe: Recipe, folder: RunFolder, output: Output, group: Group, watch: Stopwatch
) -> TrainingDocument:
    section, method, device = recipe.train, recipe.method, group.device
    configure(section, device)
    pretrained, missing = group.run_on_main(lambda: decide_student_start(recipe))
    asked, recipe = recipe, set_student_start(recipe, pretrained)
    read = group.run_on_main(lambda: folder.inputs(DISTILL, recipe))
    sets = open_checked_data(recipe, output)
    warn_of_orientation(recipe, sets, output)
    recipe = decide_fit(recipe, sets, output)
    facts = sets.facts()
    student, format = create_student(recipe, len(sets.classes), lambda sentence: output.print(escape(sentence)))
    asked = asked.model_copy(update={"teacher": recipe.teacher})  # for commands in hints
    probe = teacher = pair = None
    absence = explain_absence(recipe, folder)
    if recipe.teacher.probe is not None and absence is None:
        own = make_pair(student, format, load_own_teacher(asked, folder, sets))
        probe = group.run_on_main(lambda: ensure_probe(recipe, folder, sets, own, facts.sha256, device, output))
    loaders = Loaders.open(recipe, section, sets, format, group)
    report_student_start(recipe, missing, len(loaders.train) * section.epochs, output)
    inputs = {"data": facts.sha256}
    if absence is None:
        teacher = load_teacher(asked, folder, sets)
        pair = make_pair(student, format, teacher)
        inputs["teacher"] = state_sha256(teacher.model)
    initial_sha256 = state_sha256(student)

    task = create_task(
        method, student, pair, label_smoothing=section.label_smoothing, seed=recipe.seed, device=device
    )
    cache = cached = None
    if recipe.teacher.cache.enabled and task.teacher is not None:
        cache = TeacherCache.prepare(
            recipe,
            folder,
            task.teacher,
            loaders.train,
            sets,
            format,
            data_sha256=facts.sha256,
            teacher_sha256=inputs["teacher"],
            device=device,
        )
        task.teacher = cached = cache.open(task.teacher, loaders.train)
        output.print(escape(cache.describe(cached)))
    known = recipe.teacher.accuracy
    of_teacher = diagnosis = seen_before = formats = outputs = None
    if teacher is None or pair is None:
        output.plain(f"No teacher: {absence}")
    else:
        formats = Formats((format.mean, format.std), (teacher.format.mean, teacher.format.std))
        outputs = teacher.outputs
        teacher.model.to(device).eval()
        output.print("Evaluating the teacher.")
        evaluation = TeacherEvaluation(
            recipe, folder, sets, pair, loaders.val, facts.sha256, inputs["teacher"], device
        )
        of_teacher = group.run_on_main(evaluation.measure)
        for note in teacher.notes:
            output.warn(note)
        for line in describe_teacher(recipe.teacher.name, teacher, pair, of_teacher):
            output.plain(line)
        doubted = is_below_known(of_teacher.own, known)
        # timm's facts on its own weights, and ours on those we trained, are right.
        of_user = recipe.teacher.checkpoint is not None and teacher.origin is not None
        if doubted or (of_user and task.teacher is not None and recipe.diagnosis.enabled):
            seen_before = group.run_on_main(lambda: compare_normalisations(sets, pair, device))
        if doubted:
            raise explain_below_known(of_teacher.own, known, seen_before)
    if recipe.diagnosis.enabled:
        diagnosis = Diagnosis(
            recipe.diagnosis,
            task,
            formats=formats,
            classes=sets.classes,
            known_accuracy=_accuracy_when_trained(recipe, folder),
            outputs=outputs,
            as_option=partial(make_class_map_option, folder.path),
            seen_before=seen_before,
        )
    trained = train(
        task,
        loaders,
        section,
        role="student",
        recipe=recipe,
        inputs=inputs,
        folder=folder,
        output=output,
        diagnosis=diagnosis,
        statistics_batches=statistics_batches(method),
    )
    if teacher is not None and state_sha256(teacher.model) != inputs["teacher"]:
        raise as_error(changed_symptom(None, "during the distillation"))
    kept = None
    if cache is not None and cached is not None:
        kept = cache.facts(cached, group.all_gather_object((cached.read, cached.computed)))
        output.print(f"Teacher cache: {kept.images_read:,} images read, {kept.images_computed:,} computed.")

    def write() -> TrainingDocument:
        if probe is None:
            (folder / TEACHER_PROBE).unlink(missing_ok=True)
        path = folder.weights("student")
        save_weights(path, trained.state, WeightsInfo.of(recipe.student, sets.classes, format, sets.exif))
        provenance = watch.provenance(seed=recipe.seed, device=str(device), recipe_sha256=recipe_sha256(recipe))
        document = TrainingDocument(
            role="student",
            method=method.name,
            method_settings=method.model_dump(mode="json"),
            model=model_facts(student, format.input_size, "distilled by this run", sha256_file(path)),
            teacher=None
            if teacher is None or pair is None
            else model_facts(teacher.model, pair.teacher_size, teacher.weights, inputs["teacher"]),
            taps={role: tap.facts() for role, tap in task.taps.items()},
            discarded=task.discarded(),
            teacher_accuracy=None if of_teacher is None else of_teacher.own,
            teacher_accuracy_as_fed=None if of_teacher is None else of_teacher.as_fed,
            teacher_known_top1=known,
            start=recipe.student.start,
            initial_sha256=initial_sha256,
            pretrained_exists=has_pretrained_weights(recipe.student.name),
            teacher_fit=recipe.teacher.chosen_fit or "none",
            teacher_probe=probe,
            teacher_cache=kept,
            findings=None if diagnosis is None else diagnosis.findings,
            **trained.facts(section, facts, device),
            provenance=provenance,
        )
        folder.write_document("distill.json", document)
        folder.record_stage(DISTILL, recipe, provenance, read, facts.sha256)
        return document

    return group.run_on_main(write)


def _accuracy_when_trained(recipe: Recipe, folder: RunFolder) -> float | None:
    """The teacher's own accuracy, where this run trained it; nobody knows that of weights from elsewhere."""
    if recipe.teacher.train is None or not (folder / "teacher.json").is_file():
        return None
    return read_document(folder / "teacher.json", TrainingDocument).best.top1.value
