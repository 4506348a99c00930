"""The exception tree of both packages.

    DskdError                          exit code
    ├── UsageError                     2   the command line is wrong
    │   └── RecipeError                2   the recipe is wrong
    ├── DataError                      3   the images are wrong
    │   └── BundleError                3   the bundle is damaged or unsafe
    ├── ModelError                     3   the model or its weights are wrong
    │   ├── CheckpointError            3   weights that cannot be loaded
    │   ├── TapError                   3   a tap that the model does not have
    │   ├── TrainingDiverged           3   NaN or Inf in a loss
    │   └── DiagnosisError             3   a training fault that more steps do not mend
    ├── EnvironmentProblem             4   this machine cannot do it
    │   ├── MissingExtra               4   an optional dependency is not installed
    │   ├── ProviderLacksKernel        4   a provider that cannot compute in a model's types
    │   └── ProcessLost                4   another process of the same training ended
    ├── SeveralProblems                2   several of the above, found before any work; 3 or 4 if all are
    ├── GateFailed                     5   the work was done, the result is not good enough
    ├── NotShown                       6   the work was done, too little was measured to show a pass
    └── Interrupted                    130 stopped by the user

Only `dskd_compress.cli` turns these into a message and an exit code. Anything
that is not a `DskdError` is our bug: exit code 1.
"""

from __future__ import annotations

import importlib
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from dskd_export.codes import Code, plain

_MODULES_OF = {
    "train": ("torch", "torchvision", "timm", "safetensors", "sklearn", "scipy"),
    "onnx": ("onnx", "onnxscript", "onnx_ir", "onnxslim", "onnxruntime"),
    "hub": ("huggingface_hub",),
    "quant": ("modelopt", "onnxconverter_common", "requests"),
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt_rtx",),
    "nvml": ("pynvml",),
    "zstd": ("zstandard",),
    **{name: (name,) for name in ("tensorboard", "wandb", "mlflow")},
}
EXTRA_OF = {module: extra for extra, modules in _MODULES_OF.items() for module in modules}
"""What each optional module is installed with; the only such table."""


class DskdError(Exception):
    """A problem that the user can act on.

    Args:
        message: what is wrong, and where.
        hint: what to change; None takes the code's own cure, where there is a code.
        code: the row of the table of codes that this is a case of.
    """

    exit_code = 1
    problems: tuple[DskdError, ...] = ()  # of several that were found at once

    def __init__(self, message: str, hint: str | None = None, *, code: Code | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = plain(code.cure) if hint is None and code is not None else hint
        self.code = code

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class UsageError(DskdError):
    """The command line names something that does not exist, or options that conflict."""

    exit_code = 2


class RecipeError(UsageError):
    """The recipe is not valid; the message lists every fault with its line."""


class DataError(DskdError):
    """The data set is missing, unreadable or does not fit the models."""

    exit_code = 3


class BundleError(DataError):
    """A bundle that is incomplete, altered or unsafe to open."""


class ModelError(DskdError):
    """A model that does not exist or does not fit its role."""

    exit_code = 3


class CheckpointError(ModelError):
    """Weights that cannot be loaded: damaged, unsafe, or of another model."""


class TapError(ModelError):
    """A tap that the model cannot give."""


class TrainingDiverged(ModelError):
    """A loss became NaN or Inf.

    Attributes:
        step: of the update that failed; 1 for the first.
        epoch: 0-based.
        seen: what is not finite.
    """

    step: int = 0
    epoch: int = 0
    seen: str = ""


class DiagnosisError(ModelError):
    """A training fault that no number of steps mends."""


class EnvironmentProblem(DskdError):
    """This machine lacks a device, a library or disk space."""

    exit_code = 4


class MissingExtra(EnvironmentProblem):
    """Optional dependencies of one extra are not installed."""

    def __init__(
        self, module: str | Sequence[str], extra: str, *, needed_for: str | Sequence[str] | None = None
    ) -> None:
        names, uses = _list_words(module), _list_words(needed_for)
        reason = f"; {', '.join(uses)} {'needs' if len(uses) == 1 else 'need'} {_it(names)}" if uses else ""
        super().__init__(
            f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} not installed{reason}.",
            f"Install {_it(names)} with: pip install 'dskd-compress[{extra}]'",
        )


def _list_words(words: str | Sequence[str] | None) -> list[str]:
    return [words] if isinstance(words, str) else list(words or ())


def _it(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"


_COMMAND = re.compile(r"--\w|\bpip |\bpython |dskd-compress ")


class SeveralProblems(DskdError):
    """Several problems that were found before any work.

    Its exit code is the smallest of theirs: what is wrong with the command line fails on every machine, what is
    wrong with the images or the model on every machine that has them, and only the rest is of this machine.

    Args:
        what: what cannot be done.
        problems: at least two.
    """

    exit_code = 2

    def __init__(self, what: str, problems: Sequence[DskdError]) -> None:
        lines = [line for number, one in enumerate(problems, 1) for line in _list_problem(number, one)]
        super().__init__("\n".join([f"{what}: {len(problems)} faults.", *lines]))
        self.problems = tuple(problems)
        self.exit_code = min(one.exit_code for one in problems)


def _list_problem(number: int, problem: DskdError) -> Iterator[str]:
    """Format a problem for 80 columns; a line that holds a command stays whole, to be pasted."""
    code = "" if problem.code is None else f"{problem.code}: "
    yield from _wrap(f"{code}{problem.message}", f"{number:3}. ")
    for line in (problem.hint or "").splitlines():
        yield from [f"     {line}"] if _COMMAND.search(line) else _wrap(line, " " * 5)


def _wrap(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        80,
        initial_indent=indent,
        subsequent_indent=" " * 5,
        break_long_words=False,
        break_on_hyphens=False,
    )


class ProviderLacksKernel(EnvironmentProblem):
    """A provider that cannot compute in the types of a model; another one may."""


class ProcessLost(EnvironmentProblem):
    """Another process of the same training died or does not answer; the last checkpoint is kept."""


class GateFailed(DskdError):
    """The result exceeds the recipe's limits."""

    exit_code = 5


class NotShown(DskdError):
    """Every value is within its limit, but not its interval: more images or calls would decide."""

    exit_code = 6


class Interrupted(DskdError):
    """Stopped by Ctrl-C or SIGTERM.

    Attributes:
        run: folder that holds the saved state and the recipe; None: nothing was saved for this.
    """

    exit_code = 130
    run: Path | None = None


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: the module to import, for example `"onnxruntime"`.
        extra: the extra of this distribution that brings it, for example `"onnx"`.

    Raises:
        MissingExtra: it is not installed; the message holds the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] != module.split(".")[0]:
            raise  # the module is there; something that it needs is not
        raise MissingExtra(module, extra) from error
