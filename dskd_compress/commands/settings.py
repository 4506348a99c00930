"""Flags that stand for recipe keys, and how a command takes them.

Every flag that stands for a key is a setting: it is kept in the run's recipe where the stage that it shapes has
written. `--pair` is none: it is the question of one call. Flags such as `--out`, `--json` and `--junit` stand for
no key, shape no result, and hold for one call.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Optional

import typer

from dskd_compress.commands.options import Overrides, make_override, split_commas, split_words
from dskd_compress.commands.renamed_options import RenamedOptions
from dskd_compress.names import AMP_NAMES, METHOD_NAMES, PRECISION_NAMES, TARGET_NAMES, join_words

if TYPE_CHECKING:
    from dskd_compress.recipe import FlagOverride


class TrainingCommand(RenamedOptions):
    """`train` and `distill`, with the names that their options had before."""

    renamed: ClassVar = {"--precision": "--amp"}


@dataclass(frozen=True)
class Setting:
    """A flag that stands for a recipe key."""

    key: str  # dotted, for example `train.lr`
    flag: str  # as it is typed
    kind: type  # type of its value
    help: str  # one sentence
    hidden: bool = False  # accepted, but left out of the help of a command that has many flags
    parse: Callable[[Any], Any] | None = None  # value as typed -> value of the key
    also: str | None = None  # key that the flag sets to null

    @property
    def parameter(self) -> inspect.Parameter:
        """The parameter that Typer reads."""
        metavar = "A,B" if self.kind == list[str] else None
        option = typer.Option(self.flag, help=self.help, hidden=self.hidden, metavar=metavar)
        return inspect.Parameter(
            self.flag.strip("-").replace("-", "_"),
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[Optional[self.kind], option],
        )

    def overrides(self, value: Any) -> list[str]:
        """What a value that was given sets."""
        typed = f"{self.flag} {','.join(value) if isinstance(value, list) else value}"
        made = [make_override(self.key, self.parse(value) if self.parse else value, typed)]
        return made if self.also is None else [*made, make_override(self.also, None, typed)]


def hide(*settings: Setting) -> tuple[Setting, ...]:
    """Leave settings out of the help."""
    return tuple(replace(setting, hidden=True) for setting in settings)


def takes(*settings: Setting) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command flags for recipe keys, and `--set`.

    The command has a parameter `changes` in the place where the flags are to stand in its help, and gets there
    what was given as overrides: those of flags, then those of `--set`, which win.
    """
    parameters = {setting: setting.parameter for setting in settings}
    set_ = inspect.Parameter("set_", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Overrides)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            values = {setting: given.pop(parameter.name) for setting, parameter in parameters.items()}
            flags = [
                one
                for setting, value in values.items()
                if value not in (None, [])
                for one in setting.overrides(value)
            ]
            command(changes=[*flags, *(given.pop("set_") or [])], **given)

        found: list[inspect.Parameter] = []
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            here = [*parameters.values(), set_] if parameter.name == "changes" else [parameter]
            found += [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in here]
        run.__signature__ = inspect.Signature(found)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in found}
        return run

    return decorate


def select_flags(changes: Sequence[str]) -> list[FlagOverride]:
    """List the changes that flags made, without those of `--set`."""
    from dskd_compress.recipe import FlagOverride

    return [change for change in changes if isinstance(change, FlagOverride)]


def _names(text: str) -> list[str] | str:
    return text if text == "auto" else [name.strip() for name in text.split(",")]


TEACHER = Setting("teacher.name", "--teacher", str, "timm name of the teacher, or hf-hub:OWNER/NAME.")
TEACHER_START = Setting(
    "teacher.checkpoint",
    "--teacher-checkpoint",
    Path,
    "Weights of the teacher: .safetensors, or a torch file of tensors.",
)
# A ready teacher is not trained here, unless --set teacher.train.* says so.
TEACHER_CHECKPOINT = replace(TEACHER_START, also="teacher.train")
TEACHER_ACCURACY = Setting(
    "teacher.accuracy",
    "--teacher-accuracy",
    float,
    "Top-1 that the teacher is known to reach, such as 0.967; one clearly below is refused.",
)
STUDENT = Setting("student.name", "--student", str, "timm name of the student.")
STUDENT_CHECKPOINT = Setting(
    "student.checkpoint",
    "--student-checkpoint",
    Path,
    "Weights that the student starts from, with the classes of the data.",
)
DATA = Setting("data.source", "--data", str, "Images: a folder, .npz, .tar, digits, hfds/NAME or wds/PATH.")
INPUT_SIZE = Setting("data.input_size", "--input-size", int, "Side of the square input, in pixels.")
METHOD = Setting("method.name", "--method", str, f"Distillation method: {join_words(METHOD_NAMES)}.")
EPOCHS = Setting("train.epochs", "--epochs", int, "Epochs of training; a longer warm-up is shortened.")
BATCH_SIZE = Setting("train.batch_size", "--batch-size", int, "Images per training step.")
LR = Setting("train.lr", "--lr", float, "Peak learning rate.")
DEVICE = Setting("train.device", "--device", str, "Where to train: auto, cpu, cuda or cuda:1.")
AMP = Setting("train.precision", "--amp", str, f"Number type of training: {join_words(AMP_NAMES)}.")
SEED = Setting("seed", "--seed", int, "Seed of weights, data order and noise.")
PRECISION = Setting(
    "export.precisions",
    "--precision",
    str,
    f"Models to export next to fp32, with commas: {', '.join(PRECISION_NAMES[1:])}; or auto, by target.",
    parse=_names,
)
TARGET = Setting("export.target", "--target", str, f"What the models are for: {join_words(TARGET_NAMES)}.")
EXPORTER = Setting("export.exporter", "--exporter", str, "dynamo, or legacy for models that dynamo cannot export.")
PROFILE = Setting("benchmark.profile", "--profile", bool, "Time every node or layer too, and name the slowest.")
TUNE_AMP = replace(AMP, key="tune.amp")
# Of benchmark, ab and fleet; `for_validate` makes them those of validate.
BUNDLE_PRECISION = Setting(
    "benchmark.precisions",
    "--precision",
    list[str],
    "Only these models of the bundle, with commas: fp32,int8.",
    parse=split_commas,
)
RUNNER = Setting(
    "benchmark.runners",
    "--runner",
    list[str],
    "Only these runners, with commas: onnxruntime, tensorrt; to time, torch.",
    parse=split_commas,
)
PROVIDER = Setting(
    "benchmark.providers",
    "--provider",
    list[str],
    "Only these providers of ONNX Runtime, with commas: cpu, cuda, tensorrt. Default: cpu, and cuda if installed.",
    parse=split_commas,
)
ALLOW_CPU = Setting(
    "benchmark.allow_cpu",
    "--allow-cpu",
    list[str],
    "ONNX operators that may run on the CPU under another provider, with commas.",
    parse=split_commas,
)
BATCH = Setting(
    "benchmark.batches", "--batch", list[str], "Batch sizes to time, with commas. Default: 1,8.", parse=split_words
)
MAX_IMAGES = Setting("validate.images", "--max-images", int, "Number of images to validate on. Default: all.")

MEASURED = (BUNDLE_PRECISION, RUNNER, PROVIDER, BATCH)
# What makes a recipe, where none is given.
MODELS_AND_DATA = (TEACHER, TEACHER_CHECKPOINT, STUDENT, DATA)


def for_validate(*settings: Setting) -> tuple[Setting, ...]:
    """Make the flags of benchmark set the same keys of validate."""
    return tuple(replace(one, key=one.key.replace("benchmark.", "validate.")) for one in settings)


def for_teacher(*settings: Setting) -> tuple[Setting, ...]:
    """Make the same flags set the training of the teacher."""
    return tuple(replace(setting, key=f"teacher.{setting.key}") for setting in settings)
