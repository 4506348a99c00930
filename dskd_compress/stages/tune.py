"""Quantization-aware tuning: a short distillation of the student that includes the rounding."""

from __future__ import annotations

from dskd_compress.config import Recipe, TrainSection, TuneSection
from dskd_compress.console import Output
from dskd_compress.methods import MethodTask, create_task, statistics_batches
from dskd_compress.models import model_facts, state_sha256
from dskd_compress.required_packages import check_tools
from dskd_compress.run_folder import DISTILL, TUNE, RunFolder, name_tuned_weights, recipe_sha256
from dskd_compress.stages.session import Loaders, train
from dskd_compress.stages.setup import make_pair, open_checked_data
from dskd_compress.teachers.load import load_teacher
from dskd_compress.teachers.presence import explain_absence
from dskd_compress.training.checkpoint import CheckpointStore
from dskd_compress.training.device import configure
from dskd_compress.training.distributed import Group, join
from dskd_compress.training.fake_quant import insert_fake_quant, strip_quantisers
from dskd_compress.weights import check_classes, load_trained, save_weights
from dskd_export.documents.training import TrainingDocument
from dskd_export.errors import CheckpointError, UsageError
from dskd_export.files.atomic import sha256_file
from dskd_export.provenance import Stopwatch

ROLE = "tuned"


def tuning_section(recipe: Recipe, tune: TuneSection) -> TrainSection:
    """Derive the settings of the tuning: as the distillation, but short, gentle and without weight average."""
    return recipe.train.model_copy(
        update={
            "epochs": tune.epochs,
            "lr": recipe.train.lr / 100 if tune.lr is None else tune.lr,
            "warmup_epochs": 0,
            "precision": tune.amp or recipe.train.precision,
            "ema_decay": None,
            "compile": False,
            "validate_every": 1,
        }
    )


def run_tune(recipe: Recipe, folder: RunFolder, output: Output) -> TrainingDocument:
    """Tune the student; writes `student.<precision>.safetensors`, `tune.json` and `tuned.train.jsonl`.

    The student stays unchanged: the other precisions are made from it.

    Raises:
        UsageError: the recipe has no tune section.
        DataError: there is no student yet.
        MissingExtra: ModelOpt is not installed.
    """
    if recipe.tune is None:
        raise UsageError("The recipe has no tune section.", "Add one: --set tune.epochs=2")
    check_tools(recipe, [TUNE])
    watch = Stopwatch()
    section = tuning_section(recipe, recipe.tune)
    with join(section) as group, folder.writing(output.warn):
        return _tune(recipe, recipe.tune, section, folder, output, group, watch)


def _tune(
    recipe: Recipe,
    tune: TuneSection,
    section: TrainSection,
    folder: RunFolder,
    output: Output,
    group: Group,
    watch: Stopwatch,
) -> TrainingDocument:
    method, device = recipe.method, group.device
    configure(section, device)
    path = folder.require("student.safetensors", DISTILL)
    read = group.run_on_main(lambda: folder.inputs(TUNE, recipe))
    student, info = load_trained(path)
    names = list(student.state_dict())
    sets = open_checked_data(recipe, output)
    facts = sets.facts()
    check_classes(info.classes, sets, path, DISTILL)
    teacher = load_teacher(recipe, folder, sets) if explain_absence(recipe, folder) is None else None
    pair = None if teacher is None else make_pair(student, info.preprocessing, teacher)
    loaders = Loaders.open(recipe, section, sets, info.preprocessing, group)
    facts_of_student = model_facts(student, info.input_size, f"tuned for {tune.precision} by this run", None)
    inputs = {"data": facts.sha256}
    if teacher is not None:
        inputs["teacher"] = state_sha256(teacher.model)
    initial_sha256 = state_sha256(student)
    student.to(device)
    before = group.run_on_main(lambda: loaders.accuracy(student.eval())[0])
    # The taps are found in the plain model; after that its layers get their quantisers, in place.
    task = create_task(
        method, student, pair, label_smoothing=section.label_smoothing, seed=recipe.seed, device=device
    )
    insert_fake_quant(student, tune.precision, loaders.some_images(tune.calibration_batches))
    rounded = group.run_on_main(lambda: loaders.accuracy(student.eval())[0])
    output.print(
        f"Student: top-1 {before.top1.value:.2%}, and rounded to {tune.precision} without tuning "
        f"{rounded.top1.value:.2%}"
    )
    warm = _take_heads(task, folder, folder.settings_digest(DISTILL, recipe, inputs))
    trained = train(
        task,
        loaders,
        section,
        role=ROLE,
        recipe=recipe,
        inputs={**inputs, "student": initial_sha256, "heads": str(warm)},
        folder=folder,
        output=output,
        statistics_batches=0 if warm else statistics_batches(method),
    )

    def write() -> TrainingDocument:
        target = folder / name_tuned_weights(tune.precision)
        save_weights(target, strip_quantisers(trained.state, names), info)
        provenance = watch.provenance(seed=recipe.seed, device=str(device), recipe_sha256=recipe_sha256(recipe))
        document = TrainingDocument(
            role="student",
            method=method.name,
            method_settings={**method.model_dump(mode="json"), "tune": tune.model_dump(mode="json")},
            model=facts_of_student.model_copy(update={"sha256": sha256_file(target)}),
            teacher=None
            if teacher is None or pair is None
            else model_facts(teacher.model, pair.teacher_size, teacher.weights, inputs["teacher"]),
            taps={role: tap.facts() for role, tap in task.taps.items()},
            discarded=task.discarded(),
            initial_sha256=initial_sha256,
            **trained.facts(section, facts, device),
            provenance=provenance,
        )
        folder.write_document("tune.json", document)
        folder.record_stage(TUNE, recipe, provenance, read, facts.sha256)
        return document

    return group.run_on_main(write)


def _take_heads(task: MethodTask, folder: RunFolder, settings_sha256: str) -> bool:
    """Load the training-only modules from the distillation's last checkpoint; False: they start anew."""
    try:
        found = CheckpointStore(folder.checkpoints("student"), settings_sha256).load(task.device)
    except CheckpointError:
        return False
    if found is None:
        return False
    module = found[1]["module"]
    heads = {name: tensor for name, tensor in module.items() if not name.startswith("student.")}
    task.module.load_state_dict(heads, strict=False)
    return True
