"""Whether a run has a teacher. A method that reads none needs none, and then there may be none to compare with."""

from __future__ import annotations

from dskd_compress.config import Recipe
from dskd_compress.run_folder import RunFolder


def explain_absence(recipe: Recipe, folder: RunFolder) -> str | None:
    """Explain why a run has no teacher; None: it has one, or needs one.

    A missing teacher that the method needs is the error of the stage that loads it.
    """
    if recipe.needs_teacher:
        return None
    if not recipe.has_teacher:
        return (
            f"method {recipe.method.name} trains on the labels alone; "
            "to compare with one: --teacher NAME --teacher-checkpoint FILE"
        )
    if recipe.teacher.train is not None and not folder.weights("teacher").is_file():
        return f"method {recipe.method.name} needs no teacher, and the recipe's is not trained"
    return None
