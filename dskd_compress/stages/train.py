"""Train the teacher on the data, where the recipe has no trained one: all of it, or its classifier."""

from __future__ import annotations

import shlex

from rich.markup import escape

from dskd_compress.config import NoneMethod, Recipe, TrainSection
from dskd_compress.console import Output
from dskd_compress.methods import create_head_task, create_task
from dskd_compress.models import model_facts
from dskd_compress.run_folder import TRAIN, RunFolder, recipe_sha256
from dskd_compress.stages.session import Loaders, train
from dskd_compress.stages.setup import (
    create_untrained_teacher,
    drop_own_classes,
    open_checked_data,
    warn_of_orientation,
)
from dskd_compress.teachers.load import describe_trained
from dskd_compress.training.device import configure
from dskd_compress.training.distributed import Group, join
from dskd_compress.training.trackers import check_trackers
from dskd_compress.weights import WeightsInfo, save_weights
from dskd_export.documents.training import TrainingDocument
from dskd_export.errors import RecipeError
from dskd_export.files.atomic import sha256_file
from dskd_export.provenance import Stopwatch


def run_train(recipe: Recipe, folder: RunFolder, output: Output) -> TrainingDocument:
    """Train the teacher; writes `teacher.safetensors`, `teacher.json` and `teacher.train.jsonl`.

    Under torchrun all processes train and get the document; one of them writes.

    Raises:
        RecipeError: the recipe does not train its teacher.
        DataError, ModelError, EnvironmentProblem: see the message.
    """
    section = recipe.teacher.train
    if section is None:
        raise _nothing_to_train(recipe, folder)
    watch = Stopwatch()
    check_trackers(recipe.tracking)
    with join(section) as group, folder.writing(output.warn):
        return _train(recipe, section, folder, output, group, watch)


def _train(
    recipe: Recipe, section: TrainSection, folder: RunFolder, output: Output, group: Group, watch: Stopwatch
) -> TrainingDocument:
    device = group.device
    configure(section, device)
    inputs = group.run_on_main(lambda: folder.inputs(TRAIN, recipe))
    sets = open_checked_data(recipe, output)
    warn_of_orientation(recipe, sets, output)
    model, format = create_untrained_teacher(
        recipe, len(sets.classes), lambda sentence: output.print(escape(sentence))
    )
    loaders = Loaders.open(recipe, section, sets, format, group)
    smoothing = section.label_smoothing
    if recipe.teacher.chosen_fit == "head":
        output.print("Training the classifier alone (teacher.fit head).")
        task = create_head_task(model, label_smoothing=smoothing, device=device)
    else:
        task = create_task(NoneMethod(), model, None, label_smoothing=smoothing, seed=recipe.seed, device=device)
    facts = sets.facts()
    trained = train(
        task,
        loaders,
        section,
        role="teacher",
        recipe=recipe,
        inputs={"data": facts.sha256},
        folder=folder,
        output=output,
    )

    def write() -> TrainingDocument:
        path = folder.weights("teacher")
        save_weights(
            path, trained.state, WeightsInfo.of(drop_own_classes(recipe.teacher), sets.classes, format, sets.exif)
        )
        provenance = watch.provenance(seed=recipe.seed, device=str(device), recipe_sha256=recipe_sha256(recipe))
        document = TrainingDocument(
            role="teacher",
            method="none",
            method_settings=NoneMethod().model_dump(mode="json"),
            model=model_facts(model, format.input_size, describe_trained(recipe.teacher), sha256_file(path)),
            teacher_fit=recipe.teacher.chosen_fit,
            **trained.facts(section, facts, device),
            provenance=provenance,
        )
        folder.write_document("teacher.json", document)
        folder.record_stage(TRAIN, recipe, provenance, inputs, facts.sha256)
        return document

    return group.run_on_main(write)


def _nothing_to_train(recipe: Recipe, folder: RunFolder) -> RecipeError:
    how = {
        "none": "teacher.fit none: it is used as it is",
        "probe": "teacher.fit probe: distill fits a classifier on its features",
        None: "no teacher.train",
    }[recipe.teacher.chosen_fit]
    in_run = (folder / "recipe.yaml").is_file()
    train = f"dskd-compress train {shlex.quote(str(folder.path))} " if in_run else ""
    return RecipeError(
        f"This run does not train its teacher ({how}).", f"To train it: {train}--set teacher.fit=all"
    )
