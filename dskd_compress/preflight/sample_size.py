"""What the validation images can show, before any of them is used."""

from __future__ import annotations

from dskd_compress.config import Recipe
from dskd_compress.precisions import list_requested_precisions
from dskd_export.telemetry.host import device_name
from dskd_export.validation.sample_size import describe_images, images_needed


def describe_sample_size(recipe: Recipe, val_images: int | None) -> str:
    """Write which limits the validation images can show, and how many the others need; empty: nothing is judged.

    Args:
        val_images: in the validation set; None: unknown.
    """
    if val_images is None:
        return ""
    section = recipe.validation
    precisions = section.precisions or ("fp32", *list_requested_precisions(recipe.export))
    teacher = recipe.budget.student_drop is not None and recipe.method.name != "none"
    needed = images_needed(recipe.budget, precisions, teacher=teacher, device=device_name())
    return describe_images(needed, min(val_images, section.images or val_images))
