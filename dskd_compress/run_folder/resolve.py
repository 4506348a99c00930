"""Which recipe and which run folder a command line, or a call from Python, means."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from dskd_compress.config import NO_TEACHER, NoneMethod, Recipe
from dskd_compress.recipe import load_recipe, recipe_from_mapping
from dskd_compress.run_folder.folder import RunFolder
from dskd_compress.run_folder.stages import WRITTEN, WRITTEN_FOLDERS
from dskd_export.errors import UsageError

# What a run cannot do without, and the flag for it.
_NEEDED = {"teacher.name": "--teacher", "student.name": "--student", "data.source": "--data"}

_OWN_FOLDERS = {name.partition("/")[0] for name in (*WRITTEN, *WRITTEN_FOLDERS, "teacher_cache")}


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
        UsageError: neither a recipe nor the keys that stand for one, or the run would lie among its images.
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
        if out is not None:
            refuse_image_folder(loaded, out)
            folder = RunFolder(out)
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
    refuse_image_folder(loaded, folder.path)
    return folder.keep_student_start(loaded), folder


def refuse_image_folder(recipe: Recipe, out: Path) -> None:
    """Refuse a run folder whose files would lie among the images, and be scanned with them.

    Compared are resolved paths. A folder that holds the images is refused only where they lie in one that the run
    writes itself.

    Raises:
        UsageError: it is such a folder.
    """
    images = recipe.data.find_folder()
    if images is None:
        return
    try:
        scanned, target = images.resolve(), out.resolve()
    except (OSError, RuntimeError):  # reported where it is read or written to
        return
    if target == scanned:
        what = f"--out {out} is the folder of the images."
    elif target.is_relative_to(scanned):
        what = f"--out {out} lies in {images}, the folder of the images."
    elif scanned.is_relative_to(target) and scanned.relative_to(target).parts[0] in _OWN_FOLDERS:
        what = f"--out {out} would write into {images}, the folder of the images."
    else:
        return
    name = recipe.name if target == scanned else target.name
    free = target.parent if scanned.is_relative_to(target) else scanned.parent
    raise UsageError(what, f"Choose another one: --out {shlex.quote(os.path.relpath(free / 'runs' / name))}")


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
