"""A linear classifier of the data's classes on the teacher's features, fitted once and kept in the run folder.

Shape suffixes: B images of a batch, N images, C channels.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.markup import escape
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from dskd_compress.checkpoints import count_weight_classes, read_weights
from dskd_compress.config import Recipe, TeacherProbeSection, TeacherSection
from dskd_compress.console import Output
from dskd_compress.data import DataSets, StreamSet, ValLoader
from dskd_compress.data.splits import limit_per_class
from dskd_compress.label_space import ProbedModel, fit_linear_probe
from dskd_compress.methods import Pair
from dskd_compress.models import state_sha256
from dskd_compress.run_folder import TEACHER_PROBE, RunFolder, digest
from dskd_compress.taps import measure_pooled_width
from dskd_compress.timm_import import import_timm
from dskd_compress.weights import find_info
from dskd_export.documents.training import TeacherProbeFacts
from dskd_export.errors import CheckpointError, DataError
from dskd_export.files.atomic import write_atomic
from dskd_export.files.json_text import InvalidJson, validate_json

_METADATA_KEY = "dskd_compress_probe"


def add_probe_where_needed(recipe: Recipe, sets: DataSets, output: Output) -> Recipe:
    """Set teacher.probe for a ready teacher that has another number of classes than the data.

    A recipe that sets teacher.train, class_map or probe stays as it is. On few images the frozen features teach
    better than a teacher that was trained on them, and cost one pass.

    Raises:
        CheckpointError: the checkpoint is missing or damaged.
    """
    teacher = recipe.teacher
    if teacher.train is not None or teacher.class_map is not None or teacher.probe is not None:
        return recipe
    classes = _count_classes(teacher)
    if classes is None or classes == len(sets.classes):
        return recipe
    found = f"{classes} classes in its weights" if classes else "no classifier in its weights"
    output.print(
        escape(
            f"Teacher {teacher.name}: {found}, {len(sets.classes)} classes in the data. "
            "Fitting a classifier on its features (teacher.probe). To train it: --set teacher.train.epochs=30"
        )
    )
    kwargs = teacher.kwargs if classes else {**teacher.kwargs, "num_classes": 0}
    probed = teacher.model_copy(update={"probe": TeacherProbeSection(), "kwargs": kwargs})
    return recipe.model_copy(update={"teacher": probed})


def _count_classes(teacher: TeacherSection) -> int | None:
    """Count the classes of a teacher's weights, 0 without a classifier; None: unknown."""
    config = None
    if ":" not in teacher.name:  # hf-hub: known only after the configuration is fetched
        config = import_timm().models.get_pretrained_cfg(teacher.name, allow_unregistered=True)
    path = teacher.checkpoint
    if path is None:
        if config is None or not teacher.pretrained or "num_classes" in teacher.kwargs:
            return None
        return int(config.num_classes)
    if not path.is_file():  # reported by the stages that load it; the others need no teacher
        return None
    info = find_info(path)
    if info is not None:
        return len(info.classes)
    first, classifier = (getattr(config, key, None) for key in ("first_conv", "classifier"))
    if not isinstance(first, str) or not isinstance(classifier, str):
        return None
    weights = read_weights(path)
    if f"{first}.weight" not in weights:  # of another model or layout
        return None
    return count_weight_classes(teacher.name, weights)


def attach_unfitted_probe(
    model: nn.Module, input_size: tuple[int, int, int], classes: int, seed: int
) -> ProbedModel:
    """Attach a classifier of random weights, for what depends on shapes alone.

    Raises:
        TapError: the model has no pooled vector.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ProbedModel(model, nn.Linear(measure_pooled_width(model, input_size), classes)).eval()


def load_probe(path: Path) -> tuple[nn.Linear, TeacherProbeFacts]:
    """Read a fitted classifier.

    Raises:
        CheckpointError: the file is damaged, or no fitted classifier.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            facts = validate_json((file.metadata() or {})[_METADATA_KEY].encode(), TeacherProbeFacts)
            weight_KC, bias_K = file.get_tensor("weight"), file.get_tensor("bias")
        classifier = nn.Linear(weight_KC.shape[1], weight_KC.shape[0], device="meta").to_empty(device="cpu")
        classifier.load_state_dict({"weight": weight_KC, "bias": bias_K})
    except (SafetensorError, InvalidJson, OSError, KeyError, RuntimeError, IndexError) as error:
        raise CheckpointError(
            f"{path} is damaged, or no teacher probe.", "Delete it; dskd-compress distill fits it again."
        ) from error
    return classifier, facts


def ensure_probe(
    recipe: Recipe,
    folder: RunFolder,
    sets: DataSets,
    pair: Pair,
    data_sha256: str,
    device: torch.device,
    output: Output,
) -> TeacherProbeFacts:
    """Fit the classifier on the training images, unless the run folder has it.

    The images are not augmented and pass the student's preprocessing, as the teacher will get them.

    Args:
        pair: the student, and the teacher with its own classifier.

    Raises:
        DataError: a class has no readable image.
        TapError: the teacher has no pooled vector.
    """
    section = recipe.teacher.probe
    assert section is not None
    path = folder / TEACHER_PROBE
    key = digest(
        {
            "teacher": state_sha256(pair.teacher),
            "data": data_sha256,
            "split": recipe.data.model_dump(mode="json", exclude={"augment", "workers"}),
            "seed": recipe.seed,
            "student_format": dataclasses.asdict(pair.student_format),
            "teacher_format": dataclasses.asdict(pair.teacher_format),
            "probe": section.model_dump(mode="json"),
        }
    )
    if path.is_file():
        try:
            _, facts = load_probe(path)
        except CheckpointError:
            facts = None
        if facts is not None and facts.key == key:
            return facts
    measure_pooled_width(pair.teacher, pair.teacher_size)  # refuses a teacher without a vector at once
    feat_NC, labels_N = _read_features(recipe, sets, pair, device, output)
    missing = sorted(set(range(len(sets.classes))) - set(labels_N.tolist()))
    if missing:
        raise DataError(
            f"{sets.source}: teacher.probe: class '{sets.classes[missing[0]]}' has no readable training image.",
            "Add images, or --set teacher.probe.images_per_class=null",
        )
    output.print(f"Fitting a classifier on the teacher's features of {len(labels_N):,} images.")
    fitted = fit_linear_probe(
        feat_NC, labels_N, len(sets.classes), l2=section.l2, max_iterations=section.max_iterations
    )
    if not fitted.converged:
        output.warn(
            f"The teacher's classifier did not converge in {fitted.iterations} iterations: "
            "raise teacher.probe.max_iterations or teacher.probe.l2."
        )
    facts = TeacherProbeFacts(
        key=key,
        images=len(labels_N),
        channels=feat_NC.shape[1],
        l2=section.l2,
        iterations=fitted.iterations,
        converged=fitted.converged,
        train_accuracy=fitted.accuracy,
    )
    state = {name: tensor.detach().contiguous() for name, tensor in fitted.classifier.state_dict().items()}
    write_atomic(path, save(state, metadata={_METADATA_KEY: facts.model_dump_json()}))
    return facts


@torch.no_grad()
def _read_features(
    recipe: Recipe, sets: DataSets, pair: Pair, device: torch.device, output: Output
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Read the teacher's pooled vectors of training images, [N, C] float32, and their labels, [N] int64."""
    section = recipe.teacher.probe
    assert section is not None
    images, limit = sets.train, section.images_per_class
    if limit is not None and not isinstance(images, StreamSet):
        images = limit_per_class(images, limit, recipe.seed)
    loader = ValLoader(
        dataclasses.replace(sets, val=images),
        pair.student_format,
        batch_size=64,
        device=device,
        workers=recipe.data.workers,
    )
    # A stream gives its first images.
    most = None if limit is None else limit * len(sets.classes)
    total = len(images) if not isinstance(images, StreamSet) else most or images.length or 0
    model, adapt = pair.teacher.to(device).eval(), pair.adapter().to(device)
    features: list[NDArray[np.float32]] = []
    labels: list[NDArray[np.int64]] = []
    with output.progress("Reading the teacher's features", total, unit="image") as progress:
        for images_BCHW, labels_B in loader:
            adapted: Any = model.forward_features(adapt(images_BCHW))  # type: ignore[operator]
            vector_BC: Tensor = model.forward_head(adapted, pre_logits=True)  # type: ignore[operator]
            features.append(vector_BC.float().cpu().numpy())
            labels.append(labels_B.cpu().numpy())
            progress.advance(len(labels_B))
            if most is not None and sum(map(len, labels)) >= most:
                break
    return np.concatenate(features), np.concatenate(labels)
