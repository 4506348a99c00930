"""Options that several commands share, and the recipe that they make together."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from dskd_compress.config import Recipe
    from dskd_compress.console import Output
    from dskd_compress.recipe import FlagOverride
    from dskd_compress.run_folder import RunFolder


def complete_recipe(incomplete: str) -> list[str]:
    """Recipe names for the shell's completion."""
    from dskd_compress.recipe.files import recipe_names

    return [name for name in recipe_names() if name.startswith(incomplete)]


JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document as the last line of stdout.")]
Overrides = Annotated[
    Optional[list[str]],
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a recipe key, for example train.lr=0.1; repeatable."
    ),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, as written by distill or run.")]
RunOrBundle = Annotated[
    Path,
    typer.Argument(metavar="RUN_OR_BUNDLE", help="Run folder, or a bundle, packed or not."),
]
Precisions = Annotated[
    Optional[list[str]],
    typer.Option("--precision", help="Only this precision of the bundle, for example int8; repeatable."),
]
Runners = Annotated[
    Optional[list[str]],
    typer.Option(
        "--runner",
        help="Only this runner: onnxruntime, tensorrt (engines of build) or, to time a run, torch; repeatable.",
    ),
]
Providers = Annotated[
    Optional[list[str]],
    typer.Option(
        "--provider",
        help="Only this provider of ONNX Runtime: cpu, cuda or tensorrt; repeatable. Default: the CPU, and CUDA "
        "where it is.",
    ),
]
AllowCpu = Annotated[
    Optional[list[str]],
    typer.Option(
        "--allow-cpu",
        metavar="OPERATOR",
        help="ONNX operators that may run on the CPU under another provider, as Shape,Gather; repeatable.",
    ),
]
AcceptUnproven = Annotated[
    bool,
    typer.Option(
        "--accept-unproven", help="End with 0 instead of 6 where nothing fails and something is NOT SHOWN."
    ),
]
Results = Annotated[
    Optional[Path],
    typer.Option("--out", "-o", help="Of a bundle: folder for the results. Default: results/<bundle>/<device>."),
]
RecipeName = Annotated[
    Optional[str],
    typer.Argument(
        metavar="RECIPE",
        help="Recipe name, YAML file, or a run folder to go on with.",
        autocompletion=complete_recipe,
    ),
]
Out = Annotated[
    Optional[Path], typer.Option("--out", "-o", help="Run folder to write. Default: runs/<recipe name>.")
]
Teacher = Annotated[Optional[str], typer.Option("--teacher", help="timm name, or hf-hub:OWNER/NAME.")]
TeacherCheckpoint = Annotated[
    Optional[Path],
    typer.Option(
        "--teacher-checkpoint", help="The teacher's own weights: .safetensors, or a torch file of tensors."
    ),
]
Student = Annotated[Optional[str], typer.Option("--student", help="timm name of the student.")]
StudentCheckpoint = Annotated[
    Optional[Path],
    typer.Option("--student-checkpoint", help="Weights that the student starts from, of the classes of the data."),
]
Data = Annotated[
    Optional[str],
    typer.Option("--data", help="Folder of images, .npz, .tar, digits, or hfds/NAME, wds/PATH."),
]
MethodName = Annotated[Optional[str], typer.Option("--method", help="dskd, kd or none.")]
Epochs = Annotated[
    Optional[int], typer.Option("--epochs", help="Epochs of training; a warm-up that would not fit is shortened.")
]
BatchSize = Annotated[Optional[int], typer.Option("--batch-size", help="Images a step.")]
Lr = Annotated[Optional[float], typer.Option("--lr", help="Peak learning rate.")]
InputSize = Annotated[Optional[int], typer.Option("--input-size", help="Square input in pixels.")]
Device = Annotated[Optional[str], typer.Option("--device", help="auto, cpu, cuda or cuda:1.")]
Amp = Annotated[Optional[str], typer.Option("--amp", help="Number type of training: fp32, bf16 or fp16.")]
OldAmp = Annotated[Optional[str], typer.Option("--precision", hidden=True, help="Old name of --amp.")]
ModelPrecisions = Annotated[
    Optional[str],
    typer.Option(
        "--precision",
        help="Models in addition to fp32, with commas: fp16, bf16, int8, fp8; or auto: all that suit the target.",
    ),
]
Target = Annotated[
    Optional[str],
    typer.Option(
        "--target",
        help="What the models are for: cpu, jetson-orin, jetson-thor, turing, ampere, ada, hopper or blackwell.",
    ),
]
Seed = Annotated[Optional[int], typer.Option("--seed", help="Seed of weights, data order and noise.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan; train and write nothing.")]


# A flag is called as the last part of its key; these are not. Every flag that stands for a key is a setting: it is
# kept in the run's recipe where the stage that it shapes has written. --junit, --summary, --out, --fresh and the
# like stand for none, shape no result, and hold for one call.
_FLAGS = {
    "teacher.name": "--teacher",
    "teacher.checkpoint": "--teacher-checkpoint",
    "student.name": "--student",
    "student.checkpoint": "--student-checkpoint",
    "method.name": "--method",
    "data.source": "--data",
    "train.precision": "--amp",
    "teacher.train.precision": "--amp",
    "export.precisions": "--precision",
    "validate.precisions": "--precision",
    "validate.runners": "--runner",
    "validate.providers": "--provider",
    "benchmark.precisions": "--precision",
    "benchmark.runners": "--runner",
    "benchmark.providers": "--provider",
    "benchmark.batches": "--batch",
    "benchmark.scenarios": "--scenario",
    "build.batches": "--batch",
    "build.workspace_mb": "--memPoolSize",
    "build.optimization_level": "--builderOptimizationLevel",
    "build.version_compatible": "--versionCompatible",
    "build.hardware": "--hardwareCompatibilityLevel",
}


def flag_of(key: str) -> str:
    """The flag that stands for a key of the recipe."""
    return _FLAGS.get(key) or f"--{key.rpartition('.')[2].replace('_', '-')}"


def as_overrides(**values: Any) -> list[str]:
    """Flags that were given -> overrides; `data__source` becomes `data.source`."""
    return [_as_override(name.replace("__", "."), value) for name, value in values.items() if value is not None]


def _as_override(key: str, value: Any) -> FlagOverride:
    from dskd_compress.recipe import FlagOverride

    text = json.dumps(str(value) if isinstance(value, Path) else value)
    typed = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return FlagOverride(f"{key}={text}", f"{flag_of(key)} {typed}")


def models_of(precision: str | None) -> list[str] | str | None:
    """`--precision fp16,int8` as a list; auto as it is."""
    return [name.strip() for name in precision.split(",")] if precision and precision != "auto" else precision


def amp_of(amp: str | None, precision: str | None, output: Output) -> str | None:
    """The number type of training: `--amp`, or its old name `--precision`.

    Raises:
        UsageError: both were given, or a precision of models.
    """
    from dskd_export.errors import UsageError

    if precision is None:
        return amp
    if amp is not None:
        raise UsageError(f"--precision {precision} is the old name of --amp.", f"Give --amp {amp} alone.")
    if precision not in ("fp32", "bf16", "fp16"):
        raise UsageError(
            f"--precision {precision}: training computes in fp32, bf16 or fp16 (--amp).",
            f"Models of other precisions come later: dskd-compress export RUN --precision {precision}",
        )
    output.warn(f"--precision of a training is now called --amp: give --amp {precision}")
    return precision


def operators(given: list[str] | None) -> list[str] | None:
    """`--allow-cpu A,B --allow-cpu C` as a list."""
    return None if given is None else [name.strip() for text in given for name in text.split(",") if name.strip()]


def refuse_out(out: Path | None) -> None:
    """A run keeps its results in its own folder.

    Raises:
        UsageError: another one is asked for.
    """
    from dskd_export.errors import UsageError

    if out is not None:
        raise UsageError(f"--out {out}: the results of a run lie in the run.", "Leave --out out.")


def of_bundle(command: str, run: RunFolder, images: str) -> str:
    """How to give other images to the bundle of a run; where there is none, how to make it.

    Args:
        command: validate or benchmark.
        run: whose bundle.
        images: as they were given.
    """
    import shlex

    if not (run / "bundle/manifest.json").is_file():
        return f"make its bundle and give them to that: dskd-compress export {shlex.quote(str(run.path))}"
    bundle = shlex.quote(str(run / "bundle"))
    return f"give them to its bundle: dskd-compress {command} {bundle} --images {shlex.quote(images)}"


def say_chosen(precisions: Sequence[str] | None, key: str, given: list[str], output: Output) -> None:
    """An earlier choice of precisions that the run's recipe keeps, unless this command makes it."""
    if precisions is not None and not any(text.startswith(f"{key}=") for text in given):
        chosen = ", ".join(precisions)
        output.print(f"Only {chosen}, as the run's recipe says ({key}). For all models: --set {key}=null")


def say_kept(kept: list[str], output: Output) -> None:
    """Precisions of a bundle that a new export makes again although its recipe does not name them."""
    if kept:
        output.print(f"The bundle keeps {', '.join(kept)}. To leave them out: --precision fp32")


def say_where(folder: Path | None, output: Output) -> None:
    """Where results of a bundle were written, and what comes next."""
    from rich.markup import escape

    if folder is not None:
        output.print(escape(f"Results: {folder}"))
        output.print(escape(f"Next: dskd-compress report {folder}"))


def _is_run(out: Path) -> bool:
    try:
        return (out / "recipe.yaml").is_file()
    except PermissionError:  # told with its cure when the folder is written to
        return False


def names_a_run(changes: list[str]) -> bool:
    """Whether the flags say by themselves what is to be run."""
    keys = {change.split("=", 1)[0] for change in changes}
    return {"teacher.name", "student.name", "data.source"} <= keys


def resolve_run(
    recipe: str | None,
    out: Path | None,
    flags: list[str],
    overrides: list[str] | None,
    *,
    default: str | None = None,
) -> tuple[Recipe, RunFolder]:
    """Recipe and run folder of a command line. `--set` wins over flags, flags over the recipe.

    Raises:
        UsageError: neither a recipe nor the flags that stand for one.
        RecipeError: the recipe is not valid.
    """
    from dskd_compress.recipe import load_recipe, recipe_from_mapping
    from dskd_compress.run_folder import RunFolder
    from dskd_export.errors import UsageError

    changes = [*flags, *(overrides or [])]
    if recipe is None and out is not None and _is_run(out) and not names_a_run(changes):
        recipe = str(out)  # an existing run is gone on with, not overwritten by another recipe
    if recipe is not None and Path(recipe).is_dir():
        folder = RunFolder(Path(recipe))
        return folder.read_recipe(changes), folder if out is None else RunFolder(out)
    if recipe is not None or default is not None:
        loaded = load_recipe(recipe or str(default), changes)
    else:
        given = {change.split("=", 1)[0] for change in changes}
        missing = [
            flag
            for flag, key in (
                ("--teacher", "teacher.name"),
                ("--student", "student.name"),
                ("--data", "data.source"),
            )
            if key not in given
        ]
        if missing:
            raise UsageError(
                f"Without a recipe, {', '.join(missing)} must be given.",
                "Name a recipe (see: dskd-compress recipes list), or give --teacher, --student and --data.",
            )
        loaded = recipe_from_mapping({}, changes)
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{loaded.teacher.name}-to-{loaded.student.name}").strip("-.")
        loaded = loaded.model_copy(update={"name": name})
    return loaded, RunFolder(out if out is not None else Path("runs") / loaded.name)
