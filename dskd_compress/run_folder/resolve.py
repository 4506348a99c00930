"""Which recipe and which run folder a command line, or a call from Python, means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from dskd_compress.config import NO_TEACHER, NoneMethod, Recipe
from dskd_compress.recipe import load_recipe, recipe_from_mapping
from dskd_compress.run_folder.folder import RunFolder
from dskd_export.errors import UsageError

# What a run cannot do without, and the flag for it.
_NEEDED = {"teacher.name": "--teacher", "student.name": "--student", "data.source": "--data"}


def names_a_run(changes: Iterable[str]) -> bool:
    """Whether the changes alone, without a recipe, say what to run."""
    return not _missing(changes)


def resolve_run(
    recipe: Recipe | Path | str | None, out: Path | None, changes: Sequence[str], *, default: str | None = None
) -> tuple[Recipe, RunFolder]:
    """Find the recipe and the run folder that are meant.

    Args:
        recipe: name, file or run folder; None: the run in `out`, else `default`, else the changes alone.
        out: run folder to write; None: that of the run, else `runs/<recipe name>`.
        changes: `key=value`; later ones win.
        default: name of the recipe to take without any other.

    Raises:
        UsageError: neither a recipe nor the keys that stand for one.
        RecipeError: the recipe is not valid.
        DataError: a folder is given that is no run folder.
    """
    if recipe is None and out is not None and _is_run(out) and not names_a_run(changes):
        recipe = out  # resume an existing run; never overwrite it with another recipe
    if isinstance(recipe, Recipe):
        loaded = recipe_from_mapping(recipe.model_dump(mode="json", by_alias=True), changes)
    elif recipe is not None and Path(recipe).is_dir():
        folder = RunFolder(Path(recipe))
        loaded = folder.read_recipe(changes)
        folder = folder if out is None else RunFolder(out)
        return folder.keep_student_start(loaded), folder
    elif recipe is not None or default is not None:
        loaded = load_recipe(str(recipe or default), changes)
    else:
        if missing := _missing(changes):
            raise UsageError(
                f"Without a recipe, {', '.join(missing)} must be given.",
                "Name a recipe (see: dskd-compress recipes list), or give --teacher, --student and --data.",
            )
        loaded = recipe_from_mapping({}, changes)
        parts = [loaded.teacher.name, "to"] if loaded.teacher.name != NO_TEACHER else []
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join([*parts, loaded.student.name])).strip("-.")
        loaded = loaded.model_copy(update={"name": name})
    folder = RunFolder(out if out is not None else Path("runs") / loaded.name)
    return folder.keep_student_start(loaded), folder


def _missing(changes: Iterable[str]) -> list[str]:
    values = dict(change.partition("=")[::2] for change in changes)
    needed = dict(_NEEDED)
    if values.get("method.name", "").strip("'\" ") == NoneMethod().name:
        del needed["teacher.name"]
    return [flag for key, flag in needed.items() if key not in values]


def _is_run(out: Path) -> bool:
    try:
        return (out / "recipe.yaml").is_file()
    except PermissionError:  # reported with its hint when the folder is written to
        return False
