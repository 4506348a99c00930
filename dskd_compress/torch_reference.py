"""The student in torch, with timm's preprocessing, as the reference of a validation.

Shape suffixes: B images of a batch, N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from dskd_compress.data import Preprocessing, eval_transform
from dskd_compress.label_space import names_for_device
from dskd_compress.torch_runner import TorchLoader, TorchRunner
from dskd_compress.weights import WeightsInfo
from dskd_export.documents.base import Accuracy
from dskd_export.documents.runner_name import RunnerName
from dskd_export.documents.validation import Check, PreprocessParity
from dskd_export.errors import EnvironmentProblem
from dskd_export.files.names import make_printable
from dskd_export.onnx_from_torch import wrap_for_deployment
from dskd_export.runtime.batches import logits_of
from dskd_export.runtime.images import pixel_sha256
from dskd_export.runtime.loader import FULL
from dskd_export.runtime.preprocess import model_input, preprocess_batch
from dskd_export.runtime.runner import Array
from dskd_export.spec import ModelSpec
from dskd_export.validation.accuracy import accuracy_of
from dskd_export.validation.batches import ValidationBatch
from dskd_export.validation.causes import explain_fields, explain_inputs, explain_logits
from dskd_export.validation.checks import check_count, check_golden, check_inputs
from dskd_export.validation.judgement import Measured, TeacherOutputs, golden_parity
from dskd_export.validation.models import BATCH, LoadedModel
from dskd_export.validation.parity import compare_inputs, join_inputs
from dskd_export.validation.reference import Reference, check_images, find_differing

# Images whose two inputs differ that are kept to find out why.
_KEPT = 32


@dataclass(frozen=True)
class TimmBatch(ValidationBatch):
    """Images as timm prepares them and as the device does.

    Attributes:
        of_timm: float32 [B, C, H, W], by timm's evaluation transform with the student's own settings.
        of_device: float32 [B, C, H, W], what the bundle's spec makes of the same images.
        timm_input: `of_timm` in the type and layout of the model's input.
        teacher_input: float32 [B, C, H', W'], as the teacher wants them; None: it is not called.
    """

    of_timm: NDArray[np.float32]
    of_device: NDArray[np.float32]
    timm_input: Array
    teacher_input: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class OpenTeacher:
    """The teacher of a run.

    Attributes:
        runner: None: it cannot be called, or is not needed.
        preprocessing: how it wants its images.
        missing: why it cannot be called.
        doubt: why its answers may be worse than it is; empty: nothing is known against it.
    """

    runner: TorchRunner | None = None
    preprocessing: Preprocessing | None = None
    missing: str = ""
    doubt: str = ""


@dataclass(frozen=True)
class TorchReference(Reference[TimmBatch]):
    """The trained weights are right: their logits, their preprocessing by timm, their classes.

    Attributes:
        info: of the weights.
        open_teacher: called once for each image as well.
    """

    info: WeightsInfo
    open_teacher: OpenTeacher
    _preprocess: list[PreprocessParity] = field(default_factory=list)
    _unlike: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = field(default_factory=list)
    _teacher: list[NDArray[Any]] = field(default_factory=list)

    @property
    def classes(self) -> Sequence[str]:
        """Of the data."""
        return self.info.classes

    @property
    def preprocess(self) -> PreprocessParity:
        """The device's inputs against timm's, on the images seen."""
        return join_inputs(self._preprocess)

    @property
    def teacher(self) -> TeacherOutputs:
        """See `Reference`."""
        logits_NK = np.concatenate(self._teacher) if self._teacher else None
        return TeacherOutputs(logits_NK, self.open_teacher.missing, self.open_teacher.doubt)

    def inputs(self, batch: TimmBatch) -> Array:
        """See `Reference`: timm's for torch, the device's for a runner of the device."""
        return batch.timm_input if self.model.name.kind == "torch" else batch.inputs

    def observe(self, batch: TimmBatch) -> NDArray[Any] | None:
        """See `Reference`: compares the inputs and calls the teacher."""
        parity = compare_inputs(batch.of_timm, batch.of_device, self.info.std)
        self._preprocess.append(parity)
        if parity.max_abs_normalised != 0 and sum(len(pair[0]) for pair in self._unlike) < _KEPT:
            which_B = find_differing(batch.of_timm, batch.of_device)
            self._unlike.append((batch.of_timm[which_B], batch.of_device[which_B]))
        if self.open_teacher.runner is None or batch.teacher_input is None:
            return None
        self._teacher.append(logits_of(self.open_teacher.runner, batch.teacher_input, batch=BATCH))
        return self._teacher[-1]

    def select_measured(self, candidate: LoadedModel, measured: Measured) -> tuple[str, Measured]:
        """See `Reference`: all on the images; the reference is no candidate."""
        return self.name, measured

    def check(self, measured: Measured) -> tuple[list[Check], list[str]]:
        """See `Reference`: inputs, spec, golden images, labels and golden logits."""
        unlike = spec_differences(self.bundle.spec, self.info)
        inputs = check_inputs(self.preprocess, self.settings.max_pixel_error)
        images, shifted = check_images(measured, self.model.name)
        checks = [inputs, check_count("spec", unlike, "as the weights were trained"), *images]
        causes = [*unlike, *shifted]
        if inputs.failed and self._unlike:
            of_timm, of_device = (np.concatenate(parts) for parts in zip(*self._unlike, strict=True))
            known = explain_inputs(of_timm, of_device, self.info.mean, self.info.std)
            if known is not None or not unlike:
                causes.append(known or "the device prepares its input in another way than timm")
        if self.model.name.kind == "torch":
            golden = measured.golden.golden
            checks.append(check_golden(golden_parity(self.model, golden), self.settings.max_abs_relative))
            if checks[-1].failed:
                known = explain_logits(self.model.logits(golden.input), golden.logits)
                what = "golden.npz does not hold what the student gives for its images"
                causes.append(f"{what}: {known}" if known else what)
        return checks, causes


def measure_training_accuracy(
    model: LoadedModel, images: Iterator[tuple[Image.Image, int, str]], preprocessing: Preprocessing
) -> Accuracy | None:
    """Measure the student in torch on training images, without augmentation; None where there are none.

    Far above the validation images it shows overfitting.

    Args:
        model: the student.
        images: decoded image, label and name.
        preprocessing: of the student.
    """
    to_uint8, spec = eval_transform(preprocessing, normalise=False), model.loader.spec
    logits, labels = [], []
    while chunk := list(islice(images, BATCH)):
        pixels_BCHW = np.stack([np.asarray(to_uint8(image)) for image, _, _ in chunk])
        logits.append(model.logits(_torch_input(pixels_BCHW, preprocessing, spec)))
        labels += [label for _, label, _ in chunk]
    return accuracy_of(np.concatenate(logits), np.array(labels, np.int64)) if labels else None


def load_torch_student(student: nn.Module, info: WeightsInfo, spec: ModelSpec, provider: str) -> TorchLoader:
    """Prepare the student with the bundle's input and output, normalising as it was trained.

    Raises:
        EnvironmentProblem: there is no CUDA device.
    """
    if provider == "cuda" and not torch.cuda.is_available():
        raise EnvironmentProblem(
            f"torch {torch.__version__} finds no CUDA device for torch:cuda:fp32.",
            "Name torch:cpu:fp32, or see: dskd-compress doctor",
        )
    module = wrap_for_deployment(student, spec.model_copy(update={"mean": info.mean, "std": info.std}))
    return TorchLoader(name=RunnerName.of("torch", provider, FULL), spec=spec, model=module)


def timm_batches(
    images: Iterator[tuple[Image.Image, int, str]],
    preprocessing: Preprocessing,
    spec: ModelSpec,
    of_teacher: Preprocessing | None = None,
    size: int = BATCH,
) -> Iterator[TimmBatch]:
    """Prepare images, `size` at a time, the last batch with what is left. Each image is decoded once.

    Args:
        images: decoded image, label and name.
        preprocessing: of the student.
        spec: of its bundle.
        of_teacher: how the teacher wants them; None: it is not called.
        size: images of a batch.
    """
    to_uint8 = eval_transform(preprocessing, normalise=False)
    for_teacher = None if of_teacher is None or of_teacher == preprocessing else _transform(of_teacher)
    is_plain = _is_plain(spec)
    while chunk := list(islice(images, size)):
        decoded = [image for image, _, _ in chunk]
        pixels_BCHW = np.stack([np.asarray(to_uint8(image)) for image in decoded])
        of_timm = normalise(pixels_BCHW, preprocessing.mean, preprocessing.std)
        inputs = preprocess_batch(decoded, spec)
        timm_input = of_timm if is_plain else _torch_input(pixels_BCHW, preprocessing, spec)
        teacher_input = None
        if of_teacher is not None:
            # Both often want the same input, which is then made once.
            teacher_input = of_timm if for_teacher is None else for_teacher(decoded)
        yield TimmBatch(
            labels=np.array([label for _, label, _ in chunk], dtype=np.int64),
            inputs=inputs,
            sha256=tuple(map(pixel_sha256, decoded)),
            names=tuple(make_printable(name) for _, _, name in chunk),
            of_timm=of_timm,
            of_device=_as_plain(inputs, spec),
            timm_input=timm_input,
            teacher_input=teacher_input,
        )


def _is_plain(spec: ModelSpec) -> bool:
    return (spec.input_dtype, spec.input_layout) == ("float32", "NCHW")


def _torch_input(pixels_BCHW: NDArray[np.uint8], preprocessing: Preprocessing, spec: ModelSpec) -> Array:
    """Pixels in the type and layout of the model's input, normalised as the student was trained."""
    if _is_plain(spec):
        return normalise(pixels_BCHW, preprocessing.mean, preprocessing.std)
    # The model normalises bytes, or takes another layout.
    own = spec.model_copy(update={"mean": preprocessing.mean, "std": preprocessing.std})
    return np.stack([model_input(pixels_CHW.transpose(1, 2, 0), own) for pixels_CHW in pixels_BCHW])


def _transform(preprocessing: Preprocessing) -> Callable[[Sequence[Image.Image]], NDArray[np.float32]]:
    """timm's evaluation transform of a model, images to float32 [B, C, H, W]."""
    to_uint8 = eval_transform(preprocessing, normalise=False)

    def apply(images: Sequence[Image.Image]) -> NDArray[np.float32]:
        pixels_BCHW = np.stack([np.asarray(to_uint8(image)) for image in images])
        return normalise(pixels_BCHW, preprocessing.mean, preprocessing.std)

    return apply


def normalise(pixels_BCHW: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """Compute what timm's transform makes of its pixels, bit for bit.

    Without torch: in another thread than its models it would start a second team of threads.
    """
    value_BCHW = pixels_BCHW.astype(np.float32)
    value_BCHW /= np.float32(255)
    value_BCHW -= np.array(mean, dtype=np.float32)[:, None, None]
    value_BCHW /= np.array(std, dtype=np.float32)[:, None, None]
    return value_BCHW


def _as_plain(inputs: Array, spec: ModelSpec) -> NDArray[np.float32]:
    """The input of a model of any type and layout as float32 [B, C, H, W], normalised as the spec says."""
    input_BCHW = inputs.transpose(0, 3, 1, 2) if spec.input_layout == "NHWC" else inputs
    if spec.input_dtype == "uint8":
        return normalise(input_BCHW.astype(np.uint8, copy=False), spec.mean, spec.std)
    return input_BCHW.astype(np.float32, copy=False)


def spec_differences(spec: ModelSpec, info: WeightsInfo) -> list[str]:
    """List what a bundle says of its input and classes and the weights say otherwise."""
    expected = {
        "height": info.input_size[1],
        "width": info.input_size[2],
        "mean": info.mean,
        "std": info.std,
        "interpolation": info.interpolation,
        "crop_pct": info.crop_pct,
        "crop_mode": info.crop_mode,
        "exif": info.exif,
        "classes": names_for_device(info.classes)[0],
    }
    given = {name: getattr(spec, name) for name in expected}
    return [f"spec.json: {text}" for text in explain_fields(given, expected)]
