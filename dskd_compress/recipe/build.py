"""Plain values and overrides -> a checked recipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dskd_compress.config import DskdMethod, Recipe, Section, TrainSection
from dskd_compress.config.dskd import drop_preset_keys
from dskd_compress.config.models import drop_other_fits
from dskd_compress.recipe.faults import Fault, KeyPath, Origins, format_key, list_faults, raise_faults
from dskd_compress.recipe.overrides import format_override
from dskd_compress.recipe.sections import may_be_null, sections_of, tag_of
from dskd_compress.recipe.yaml_text import parse_yaml
from dskd_export.files.field_faults import format_value

SectionT = TypeVar("SectionT", bound=Section)


def recipe_from_mapping(
    values: Mapping[str, Any],
    overrides: Sequence[str] = (),
    where: str = "command line",
    lines: Mapping[KeyPath, int] | None = None,
    faults: Iterable[Fault] = (),
) -> Recipe:
    """Check values against the recipe's sections.

    Args:
        values: sections as they stand in a file; not changed. An empty section (`data:` with nothing
            under it) has its defaults, and a method without a name is the default method.
        overrides: `section.key=value`, the value in YAML; later ones win. Setting `method.name`
            starts that section anew, since the keys of another method mean nothing to it; setting
            `method.preset` sets all keys that the presets differ in; setting `teacher.fit` drops the
            settings of other choices that no override sets.
        lines: key path -> line in the source.

    Raises:
        RecipeError: lists every fault, each with its place.
    """
    found = list(faults)
    origins = Origins(where, dict(lines or {}))
    settings, unreadable = apply_overrides(values, overrides, origins)
    found += unreadable
    for section in (("train",), ("teacher", "train")):
        _fit_warmup(values, settings, section, origins)
    if "validation" in settings:  # the attribute's name; in a recipe there is one spelling
        del settings["validation"]
        path = ("validation",)
        found.append(Fault(origins.of(path), path, "unknown section, did you mean 'validate'?"))
    method = settings.get("method")
    if method is None and "method" in settings:
        method = settings["method"] = {}
    if isinstance(method, dict):
        if isinstance(method.get("name", ""), str):
            method.setdefault("name", tag_of(DskdMethod))
        else:
            key = ("method", "name")
            found.append(Fault(origins.of(key), key, f"must be text, not {format_value(method['name'])}"))
            del settings["method"]
    return check_settings(Recipe, settings, origins, found)


def apply_overrides(
    values: Mapping[str, Any], overrides: Sequence[str], origins: Origins
) -> tuple[dict[str, Any], list[Fault]]:
    """Values with overrides in them, and the overrides that could not be read."""
    settings: dict[str, Any] = _copy(values)
    faults = [_apply_override(settings, text, origins) for text in overrides]
    return settings, [fault for fault in faults if fault is not None]


def check_settings(
    model: type[SectionT], settings: dict[str, Any], origins: Origins, faults: Sequence[Fault] = ()
) -> SectionT:
    """Check settings against a model.

    Args:
        settings: as written; an empty section gets its defaults.

    Raises:
        RecipeError: lists every fault, each with its place.
    """
    _fill_empty_sections(model, settings)
    found = list(faults)
    try:
        checked = model.model_validate(settings)
    except ValidationError as error:
        # A value that could not be read is None by now; its own fault says more.
        known = {(fault.origin, fault.path) for fault in found}
        found += [
            fault
            for fault in list_faults(error, settings, origins, model)
            if (fault.origin, fault.path) not in known
        ]
    if found:
        raise_faults(found, origins.where)
    return checked


def _copy(value: Any) -> Any:
    """Copy values; one that stands in two places becomes two, so that an override changes one of them."""
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _fill_empty_sections(model: type[BaseModel], values: dict[str, Any]) -> None:
    for key, value in values.items():
        sections = sections_of(model, key)
        if not sections:
            continue
        if value is None and not may_be_null(model, key):
            values[key] = {}
        elif isinstance(value, dict) and len(sections) == 1:
            _fill_empty_sections(sections[0], value)


def _fit_warmup(before: Mapping[str, Any], settings: dict[str, Any], path: KeyPath, origins: Origins) -> None:
    """Shorten a warm-up as an override shortens its training, where it would not fit any more."""
    if (*path, "epochs") not in origins.overrides or (*path, "warmup_epochs") in origins.overrides:
        return
    old, new = _section(before, path), _section(settings, path)
    epochs, warmup = old.get("epochs", TrainSection().epochs), old.get("warmup_epochs")
    numbers = (epochs, warmup, new.get("epochs"))
    if all(type(number) is int for number in numbers) and epochs > warmup >= new["epochs"] >= 1:
        new["warmup_epochs"] = warmup * new["epochs"] // epochs


def _section(values: Mapping[str, Any], path: KeyPath) -> dict[str, Any]:
    section: Any = values
    for key in path:
        section = section.get(key) if isinstance(section, Mapping) else None
    return section if isinstance(section, dict) else {}


def _apply_override(values: dict[str, Any], text: str, origins: Origins) -> Fault | None:
    key, equals, written = text.partition("=")
    parts = tuple(key.strip().split("."))
    if not equals or not all(parts):
        return Fault(format_override(text), (), "write it as section.key=value")
    if not written.strip():
        return Fault(format_override(text), parts, "has no value; for none write null")
    parsed = parse_yaml(written, format_override(text))
    if parsed.faults:
        return Fault(format_override(text), parts, parsed.faults[0].what)
    section = values
    for depth, part in enumerate(parts[:-1], start=1):
        below = section.get(part)
        if below is None:
            below = section[part] = {}
            origins.override(parts[:depth], text)
        elif not isinstance(below, dict):
            what = f"{format_key(parts[:depth])} is a value, not a section: it has no '{parts[depth]}'"
            return Fault(format_override(text), (), what)
        section = below
    if parts == ("method", "name") and section.get("name", tag_of(DskdMethod)) != parsed.value:
        section.clear()
    elif parts == ("method", "preset"):
        drop_preset_keys(section)
    section[parts[-1]] = parsed.value
    if parts[0] == "teacher" and len(parts) == 2:
        _settle_fit(section, parts[1], origins)
    origins.override(parts, text)
    return None


def _settle_fit(teacher: dict[str, Any], key: str, origins: Origins) -> None:
    """Let an override of the teacher's fit, or one that takes its settings away, replace what the file chose."""
    if key == "fit":
        drop_other_fits(teacher, [name for name in teacher if origins.is_set(("teacher", name))])
        return
    needed_by = {"train": ("head", "all"), "probe": ("probe",)}.get(key, ())
    taken_away = teacher[key] is None or teacher[key] is False
    if taken_away and teacher.get("fit") in needed_by and not origins.is_set(("teacher", "fit")):
        teacher["fit"] = None
