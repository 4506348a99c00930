"""Options and lines of text that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from dskd_compress.console import Output
    from dskd_compress.run_folder import RunFolder


def complete_recipe(incomplete: str) -> list[str]:
    """Recipe names for the shell's completion."""
    from dskd_compress.recipe.files import list_recipe_names

    return [name for name in list_recipe_names() if name.startswith(incomplete)]


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


def split_commas(words: Optional[list[str]]) -> Optional[list[str]]:
    """Split `a,b` into two values: a list is given with commas, or by repeating the flag."""
    return [name.strip() for text in words for name in text.split(",") if name.strip()] if words else None


def split_words(words: Optional[list[str]]) -> Optional[list[Any]]:
    """Split as `split_commas`; words of digits are numbers."""
    found = split_commas(words)
    return found and [int(word) if word.isdecimal() else word for word in found]


AcceptUnproven = Annotated[
    bool,
    typer.Option(
        "--accept-unproven", help="Exit with 0 instead of 6 where nothing fails and something is NOT SHOWN."
    ),
]
Results = Annotated[
    Optional[Path],
    typer.Option("--out", "-o", help="Results folder of a bundle. Default: results/<bundle>/<device>."),
]
RecipeName = Annotated[
    Optional[str],
    typer.Argument(
        metavar="RECIPE",
        help="Recipe name, YAML file, or run folder to resume.",
        autocompletion=complete_recipe,
    ),
]
Out = Annotated[
    Optional[Path], typer.Option("--out", "-o", help="Run folder to write. Default: runs/<recipe name>.")
]
InputSize = Annotated[Optional[int], typer.Option("--input-size", help="Side of the square input, in pixels.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan; train and write nothing.")]


# A flag is named as the last part of its key; these are not.
_FLAGS = {
    "validate.images": "--max-images",
    "benchmark.providers": "--provider",
    "benchmark.scenarios": "--scenario",
    "build.batches": "--batch",
    "build.workspace_mb": "--memPoolSize",
    "build.optimization_level": "--builderOptimizationLevel",
    "build.version_compatible": "--versionCompatible",
    "build.hardware": "--hardwareCompatibilityLevel",
}


def flag_of(key: str) -> str:
    """Name the flag that stands for a key of the recipe."""
    return _FLAGS.get(key) or f"--{key.rpartition('.')[2].replace('_', '-')}"


def as_overrides(**values: Any) -> list[str]:
    """Turn the flags that were given into overrides; `data__source` becomes `data.source`."""
    keys = {name.replace("__", "."): value for name, value in values.items() if value is not None}
    return [make_override(key, value, f"{flag_of(key)} {_typed(value)}") for key, value in keys.items()]


def make_override(key: str, value: Any, typed: str) -> str:
    """Make the override of a flag; errors show what was typed."""
    from dskd_compress.recipe import FlagOverride

    return FlagOverride.of_value(key, value, typed)


def _typed(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def refuse_out(out: Path | None) -> None:
    """Refuse another folder for the results of a run.

    Raises:
        UsageError: one was given.
    """
    from dskd_export.errors import UsageError

    if out is not None:
        raise UsageError(f"--out {out}: the results of a run stay in the run.", "Leave --out out.")


def of_bundle(command: str, run: RunFolder, images: str) -> str:
    """Make the hint that gives other images to the bundle of a run, or that makes the bundle if it is missing."""
    import shlex

    if not (run / "bundle/manifest.json").is_file():
        return f"make its bundle and give them to that: dskd-compress export {shlex.quote(str(run.path))}"
    bundle = shlex.quote(str(run / "bundle"))
    return f"give them to its bundle: dskd-compress {command} {bundle} --images {shlex.quote(images)}"


def say_chosen(precisions: Sequence[str] | None, key: str, given: list[str], output: Output) -> None:
    """Print an earlier choice of precisions that the run's recipe keeps, unless this command makes it."""
    if precisions is not None and not any(text.startswith(f"{key}=") for text in given):
        chosen = ", ".join(precisions)
        output.print(f"Only {chosen}, from the run's recipe ({key}). For all models: --set {key}=null")


def say_where(folder: Path | None, output: Output) -> None:
    """Print where the results of a bundle were written, and the next command."""
    if folder is not None:
        output.plain(f"Results: {folder}")
        say_next("report", folder, output)


def say_next(command: str, folder: Path, output: Output) -> None:
    """Print the next command; it works when pasted, whatever the path holds."""
    import shlex

    output.plain(f"Next: dskd-compress {command} {shlex.quote(str(folder))}")
