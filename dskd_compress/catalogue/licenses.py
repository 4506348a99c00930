"""Find the licences of the weights in a bundle, and of those that they come from."""

from __future__ import annotations

from dskd_compress.config import ModelSection, Recipe
from dskd_compress.timm_import import import_timm
from dskd_export.bundle import LicenseFacts, Licenses


def find_licenses(recipe: Recipe) -> Licenses:
    """Find the licences: the student's in the recipe, those of pretrained weights in timm."""
    name = recipe.export.license
    return Licenses(
        weights=LicenseFacts(
            name=name, source="export.license of the recipe" if name else "export.license is not set in the recipe"
        ),
        student_start=find_license(recipe.student),
        teacher=find_license(recipe.teacher)
        if recipe.has_teacher
        else LicenseFacts(name=None, source="none needed: no teacher"),
    )


def find_license(section: ModelSection) -> LicenseFacts:
    """Find the licence of the weights that a model starts from, or the reason why it is unknown."""
    if section.checkpoint is not None:
        return LicenseFacts(name=None, source="a checkpoint of one's own, which names no licence")
    if not section.pretrained:
        return LicenseFacts(name=None, source="none needed: started from random weights")
    if ":" in section.name:
        return LicenseFacts(name=None, source=f"see the model card of {section.name}")
    config = import_timm().models.get_pretrained_cfg(section.name, allow_unregistered=True)
    if config is None:
        return LicenseFacts(name=None, source=f"timm has no pretrained weights of {section.name}")
    weights = f"{config.architecture}.{config.tag}" if config.tag else config.architecture
    if config.license in (None, "", "unknown"):
        return LicenseFacts(name=None, source=f"timm names none for {weights}")
    return LicenseFacts(name=config.license, source=f"timm, pretrained_cfg of {weights}")
