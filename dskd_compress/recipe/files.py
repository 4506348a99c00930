"""Recipe files: those that come with the tool, and the user's own; a recipe as text and as digests."""

from __future__ import annotations

import contextlib
import difflib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from dskd_compress.config import Recipe, Section
from dskd_compress.names import WEIGHTS_SUFFIXES
from dskd_compress.recipe.build import recipe_from_mapping
from dskd_compress.recipe.faults import Fault, raise_faults
from dskd_compress.recipe.yaml_text import MAX_BYTES, dump_yaml, parse_yaml
from dskd_export.errors import DataError, DskdError, EnvironmentProblem, RecipeError
from dskd_export.files.bounded import read_bounded
from dskd_export.files.json_text import digest

DEFAULT_RECIPE = "digits/resnet18-to-mobilenetv3_small_050"
"""What the demo runs: real images that need no download, on two CPU cores."""


@dataclass(frozen=True)
class RecipeInfo:
    """One recipe that comes with the tool."""

    name: str
    path: Path
    recipe: Recipe


def find_recipe_folder() -> Path:
    """Find the folder of recipes: package data, or the repository's in an editable install.

    Raises:
        EnvironmentProblem: both are missing.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "recipes", package.parent / "recipes"):
        if folder.is_dir():
            return folder
    raise EnvironmentProblem(f"{package / 'recipes'} is missing.", "Install dskd-compress again.")


def list_recipe_names() -> list[str]:
    """List names like `digits/resnet18-to-mobilenetv3_small_050`, sorted; no file is opened."""
    folder = find_recipe_folder()
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def list_recipes() -> list[RecipeInfo]:
    """Load all recipes that come with the tool, sorted by name."""
    folder = find_recipe_folder()
    return [RecipeInfo(name, folder / f"{name}.yaml", load_recipe(name)) for name in list_recipe_names()]


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe by the name of one that comes with the tool, or from a file.

    A file wins over a name. Relative paths in the recipe count from the working directory.

    Args:
        overrides: see `recipe_from_mapping`.

    Raises:
        RecipeError: there is no such recipe (the message names the closest), or it has faults
            (the message lists all of them with their lines).
    """
    path = _find(name_or_path, overrides)
    where = str(path) if path == Path(name_or_path) else name_or_path
    parsed = parse_yaml(_read(path), where)
    if parsed.value is None and not parsed.faults:
        parsed.faults.append(Fault(f"{where}:1", (), "the recipe is empty"))
    if parsed.value is not None and not isinstance(parsed.value, dict):
        kind = type(parsed.value).__name__
        parsed.faults.append(Fault(f"{where}:1", (), f"a recipe is made of 'section:' keys, this is a {kind}"))
    if not isinstance(parsed.value, dict):
        raise_faults(parsed.faults, where)
    return recipe_from_mapping(parsed.value, overrides, where, parsed.lines, parsed.faults)


def read_recipe_text(name_or_path: str) -> str:
    """Read a recipe as written, with its comments.

    Raises:
        RecipeError: there is no such recipe, or it is no text.
    """
    return _read(_find(name_or_path))


def dump_recipe(recipe: Recipe) -> str:
    """Write every key with its value, in the order of the sections; loads back to an equal recipe."""
    values = recipe.model_dump(mode="json", by_alias=True)
    return dump_yaml(values)


def section_digests(recipe: Section) -> dict[str, str]:
    """Hash each top-level key, as written in the file: key -> sha256 of its canonical JSON."""
    values = recipe.model_dump(mode="json", by_alias=True)
    return {key: digest(value) for key, value in values.items()}


IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
DATA_SUFFIXES = (".npz", ".tar")
_LOOKED_AT = 1000  # entries of a folder


_MODELS = ("resnet34", "resnet18")  # those of the README


def explain_other(path: Path, given: Sequence[str] = ()) -> tuple[str, str] | None:
    """Explain what is given in place of a recipe or a run, and the command for it; None: it is unknown.

    Only names are read.

    Args:
        given: `key=value` of the command line; the command names the models and images of it.
    """
    shown = shlex.quote(str(path))
    values = {key.strip(): value.strip().strip("'\"") for key, _, value in (text.partition("=") for text in given)}
    named = [shlex.quote(values.get(f"{role}.name") or "") for role in ("teacher", "student")]
    teacher, student = (name if name != "''" else other for name, other in zip(named, _MODELS, strict=True))
    models = f"--teacher {teacher} --student {student}"
    if path.is_dir():
        if (path / "manifest.json").is_file():
            run = path.parent
            hint = f"Give its run: {shlex.quote(str(run))}" if (run / "recipe.yaml").is_file() else None
            return "a bundle", hint or f"dskd-compress validate {shown}, or benchmark"
        if _holds_images(path):
            return "a folder of images", f"dskd-compress run --data {shown} {models}"
        return None
    suffix = path.suffix.lower()
    if suffix in DATA_SUFFIXES:
        return "a file of images", f"dskd-compress run --data {shown} {models}"
    if suffix in WEIGHTS_SUFFIXES:
        teacher = named[0] if named[0] != "''" else "NAME"  # that of the weights
        images = shlex.quote(values["data.source"]) if values.get("data.source") else "FOLDER"
        flags = f"--teacher {teacher} --teacher-checkpoint {shown} --student {student} --data {images}"
        return "a file of weights", f"dskd-compress run {flags}"
    return None


def _holds_images(folder: Path) -> bool:
    """Whether a folder has images, down to train/CLASS/, by the names of its first entries."""
    with contextlib.suppress(OSError):
        for pattern in ("*", "*/*", "*/*/*"):
            for entry in islice(folder.glob(pattern), _LOOKED_AT):
                suffix = entry.suffix.lower()
                if suffix in IMAGE_SUFFIXES or (suffix in DATA_SUFFIXES and entry.stem == "train"):
                    return True
    return False


def _find(name_or_path: str, given: Sequence[str] = ()) -> Path:
    path = Path(name_or_path)
    if path.is_file():
        if (other := explain_other(path, given)) is not None:
            raise RecipeError(f"{name_or_path} is {other[0]}, not a recipe.", other[1])
        return path
    names = list_recipe_names()
    name = name_or_path[: -len(".yaml")] if name_or_path.endswith(".yaml") else name_or_path
    if name in names:
        return find_recipe_folder() / f"{name}.yaml"
    raise _not_found(name_or_path, path, name, names, given)


def _not_found(typed: str, path: Path, name: str, names: list[str], given: Sequence[str]) -> DskdError:
    if path.is_dir():
        inside = path / "recipe.yaml"
        if (other := explain_other(path, given)) is not None and not inside.is_file():
            return RecipeError(f"{typed} is {other[0]}, not a recipe.", other[1])
        hint = f"Give the file: {inside}" if inside.is_file() else "Give a recipe file or name."
        return RecipeError(f"{typed} is a folder, not a recipe.", hint)
    # The model part alone is a likely thing to type, so it is compared as well.
    whole = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    last = {known.rpartition("/")[2]: known for known in names}
    part = [last[close] for close in difflib.get_close_matches(name.rpartition("/")[2], last, n=2, cutoff=0.5)]
    close = list(dict.fromkeys(whole + part))
    meant = f"Did you mean {' or '.join(close)}? " if close else ""
    return RecipeError(
        f"There is no recipe, file or run folder '{typed}'.", f"{meant}All recipes: dskd-compress recipes list"
    )


def _read(path: Path) -> str:
    try:
        data = read_bounded(path, MAX_BYTES)
    except DataError as error:
        raise RecipeError(error.message, error.hint) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RecipeError(f"{path}:{line}: not UTF-8 text.", "Save the recipe as UTF-8.") from error
