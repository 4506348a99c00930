"""Train the teacher on the data, where the recipe has no trained one."""

from __future__ import annotations

import shlex

from rich.markup import escape

from dskd_compress.config import NoneMethod, Recipe, TrainSection
from dskd_compress.console import Output
from dskd_compress.methods import create_task
from dskd_compress.models import model_facts
from dskd_compress.run_folder import TRAIN, RunFolder, recipe_sha256
from dskd_compress.stages.session import Loaders, train
from dskd_compress.stages.setup import create_untrained_teacher, open_checked_data
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
        raise RecipeError(
            "This run uses a ready teacher (no teacher.train): nothing to train.",
            f"Next: dskd-compress distill {shlex.quote(str(folder.path))}",
        )
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
    model, format = create_untrained_teacher(
        recipe, len(sets.classes), lambda sentence: output.print(escape(sentence))
    )
    loaders = Loaders.open(recipe, section, sets, format, group)
    task = create_task(
        NoneMethod(), model, None, label_smoothing=section.label_smoothing, seed=recipe.seed, device=device
    )
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
        save_weights(path, trained.state, WeightsInfo.of(recipe.teacher, sets.classes, format))
        provenance = watch.provenance(seed=recipe.seed, device=str(device), recipe_sha256=recipe_sha256(recipe))
        document = TrainingDocument(
            role="teacher",
            method="none",
            method_settings=NoneMethod().model_dump(mode="json"),
            model=model_facts(model, format.input_size, "trained by this run", sha256_file(path)),
            **trained.facts(section, facts, device),
            provenance=provenance,
        )
        folder.write_document("teacher.json", document)
        folder.record_stage(TRAIN, recipe, provenance, inputs, facts.sha256)
        return document

    return group.run_on_main(write)
