"""Licences of the weights that a bundle holds and comes from, as far as somebody said them."""

from __future__ import annotations

from dskd_compress.config import ModelSection, Recipe
from dskd_compress.timm_import import import_timm
from dskd_export.bundle import LicenseFacts, Licenses


def licenses_of(recipe: Recipe) -> Licenses:
    """What the recipe says of the student's weights, and timm of those that it and the teacher started from."""
    said = recipe.export.license
    return Licenses(
        weights=LicenseFacts(
            name=said, source="export.license of the recipe" if said else "export.license is not set in the recipe"
        ),
        student_start=license_of(recipe.student),
        teacher=license_of(recipe.teacher),
    )


def license_of(section: ModelSection) -> LicenseFacts:
    """The licence of the weights that a model starts from; unknown with its reason where nobody tells."""
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
