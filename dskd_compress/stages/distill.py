"""Train the student from the teacher."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from rich.markup import escape
from torch import nn

from dskd_compress.config import Recipe
from dskd_compress.console import Output
from dskd_compress.data import DataSets, Preprocessing, ValLoader
from dskd_compress.methods import Pair, create_task, statistics_batches
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
from dskd_compress.teachers.classes import make_class_map_option, make_command
from dskd_compress.teachers.evaluation import (
    TeacherAccuracy,
    TeacherEvaluation,
    describe_teacher,
    explain_below_known,
    is_below_known,
)
from dskd_compress.teachers.fit import decide_fit
from dskd_compress.teachers.load import TeacherModel, load_own_teacher, load_teacher
from dskd_compress.teachers.normalisation import compare_normalisations
from dskd_compress.teachers.presence import explain_absence
from dskd_compress.teachers.probe import ensure_probe
from dskd_compress.training.device import configure
from dskd_compress.training.diagnosis import Diagnosis, Formats, as_error, changed_symptom
from dskd_compress.training.diagnosis.symptom import Symptom
from dskd_compress.training.distributed import Group, join
from dskd_compress.training.trackers import check_trackers
from dskd_compress.weights import WeightsInfo, save_weights
from dskd_export.documents.base import read_document
from dskd_export.documents.training import ModelFacts, TeacherProbeFacts, TrainingDocument
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


@dataclass(frozen=True)
class _Teacher:
    """The teacher of a distillation.

    Attributes:
        loaded: the model, and how it gets its images.
        pair: it and the student.
        sha256: of its weights.
        probe: the classifier that was fitted on its features; None: none was.
    """

    loaded: TeacherModel
    pair: Pair
    sha256: str
    probe: TeacherProbeFacts | None


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
    training = make_command(asked, folder, "train", "--set teacher.fit=head")
    recipe = decide_fit(recipe, sets, output, train=training)
    asked = asked.model_copy(update={"teacher": recipe.teacher})  # for commands in hints
    facts = sets.facts()
    student, format = create_student(recipe, len(sets.classes), lambda sentence: output.print(escape(sentence)))
    loaders = Loaders.open(recipe, section, sets, format, group)
    report_student_start(recipe, missing, len(loaders.train) * section.epochs, output)
    inputs, teacher = {"data": facts.sha256}, None
    absence = explain_absence(recipe, folder)
    if absence is None:
        teacher = _open_teacher(asked, folder, sets, (student, format), facts.sha256, group, output)
        inputs["teacher"] = teacher.sha256
    else:
        output.plain(f"No teacher: {absence}.")
    initial_sha256 = state_sha256(student)

    task = create_task(
        method,
        student,
        None if teacher is None else teacher.pair,
        label_smoothing=section.label_smoothing,
        seed=recipe.seed,
        device=device,
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
    accuracy = better = diagnosis = None
    if teacher is not None:
        accuracy, better = _check_teacher(recipe, folder, sets, teacher, loaders.val, facts.sha256, group, output)
    if recipe.diagnosis.enabled:
        diagnosis = Diagnosis(
            recipe.diagnosis,
            task,
            formats=None if teacher is None else _find_formats(teacher.pair),
            classes=sets.classes,
            known_accuracy=_accuracy_when_trained(recipe, folder),
            outputs=None if teacher is None else teacher.loaded.outputs,
            as_option=partial(make_class_map_option, folder.path),
            seen_before=better,
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
    if teacher is not None and state_sha256(teacher.loaded.model) != teacher.sha256:
        raise as_error(changed_symptom(None, "during the distillation"))
    kept = None
    if cache is not None and cached is not None:
        kept = cache.facts(cached, group.all_gather_object((cached.read, cached.computed)))
        output.print(f"Teacher cache: {kept.images_read:,} images read, {kept.images_computed:,} computed.")

    def write() -> TrainingDocument:
        probe = None if teacher is None else teacher.probe
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
            teacher=None if teacher is None else _describe_model(teacher),
            taps={role: tap.facts() for role, tap in task.taps.items()},
            discarded=task.discarded(),
            teacher_accuracy=None if accuracy is None else accuracy.own,
            teacher_accuracy_as_fed=None if accuracy is None else accuracy.as_fed,
            teacher_known_top1=recipe.teacher.accuracy,
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


def _open_teacher(
    recipe: Recipe,
    folder: RunFolder,
    sets: DataSets,
    student: tuple[nn.Module, Preprocessing],
    data_sha256: str,
    group: Group,
    output: Output,
) -> _Teacher:
    """Load the teacher, with a classifier fitted on its features where the recipe wants one."""
    probe = None
    if recipe.teacher.probe is not None:
        own = make_pair(*student, load_own_teacher(recipe, folder, sets))
        probe = group.run_on_main(
            lambda: ensure_probe(recipe, folder, sets, own, data_sha256, group.device, output)
        )
    loaded = load_teacher(recipe, folder, sets)
    return _Teacher(loaded, make_pair(*student, loaded), state_sha256(loaded.model), probe)


def _check_teacher(
    recipe: Recipe,
    folder: RunFolder,
    sets: DataSets,
    teacher: _Teacher,
    val: ValLoader,
    data_sha256: str,
    group: Group,
    output: Output,
) -> tuple[TeacherAccuracy, Symptom | None]:
    """Measure the teacher and print what it is fed, before hours are spent on learning from it.

    Returns:
        Its accuracy, and the fault of its normalisation, where one was looked for and found.

    Raises:
        DiagnosisError: it is clearly worse than the recipe says it is known to be.
    """
    loaded, pair, device = teacher.loaded, teacher.pair, group.device
    loaded.model.to(device).eval()
    output.print("Evaluating the teacher.")
    evaluation = TeacherEvaluation(recipe, folder, sets, pair, val, data_sha256, teacher.sha256, device)
    accuracy = group.run_on_main(evaluation.measure)
    for note in loaded.notes:
        output.warn(note)
    for line in describe_teacher(recipe.teacher.name, loaded, pair, accuracy):
        output.plain(line)
    known, better = recipe.teacher.accuracy, None
    doubted = is_below_known(accuracy.own, known)
    # timm's facts on its own weights, and ours on those we trained, are right.
    of_user = recipe.teacher.checkpoint is not None and loaded.origin is not None
    if doubted or (of_user and recipe.needs_teacher and recipe.diagnosis.enabled):
        output.print("Trying the usual normalisations of the teacher's images.")
        better = group.run_on_main(lambda: compare_normalisations(sets, pair, device))
    if doubted:
        raise explain_below_known(accuracy.own, recipe.teacher, loaded, pair, better)
    return accuracy, better


def _describe_model(teacher: _Teacher) -> ModelFacts:
    return model_facts(teacher.loaded.model, teacher.pair.teacher_size, teacher.loaded.weights, teacher.sha256)


def _find_formats(pair: Pair) -> Formats:
    student, teacher = pair.student_format, pair.teacher_format
    return Formats((student.mean, student.std), (teacher.mean, teacher.std))


def _accuracy_when_trained(recipe: Recipe, folder: RunFolder) -> float | None:
    """The teacher's own accuracy, where this run trained it; nobody knows that of weights from elsewhere."""
    if recipe.teacher.train is None or not (folder / "teacher.json").is_file():
        return None
    return read_document(folder / "teacher.json", TrainingDocument).best.top1.value
