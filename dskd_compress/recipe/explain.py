"""Documentation of the recipe keys: a commented recipe and a JSON Schema, generated from the sections."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, get_origin

from pydantic import BaseModel

from dskd_compress.config import DskdMethod, Recipe, Section, StudentSection, TeacherSection
from dskd_compress.config.dskd import PRESET_KEYS
from dskd_compress.recipe.sections import field_of, keys_of, may_be_null, sections_of, tag_of
from dskd_compress.recipe.yaml_text import dump_yaml

WIDTH = 100 - len("# ")  # a section that may stand in another's place is commented out as a whole

# The only plain keys without a default.
_REQUIRED: dict[tuple[type[BaseModel], str], str] = {
    (TeacherSection, "name"): "resnet34",
    (StudentSection, "name"): "resnet18",
}

SHORT_KEYS = (
    "name",
    "seed",
    "data.source",
    "data.input_size",
    "teacher.name",
    "teacher.checkpoint",
    "student.name",
    "student.pretrained",
    "student.checkpoint",
    "method.name",
    "train.epochs",
    "train.batch_size",
    "train.lr",
    "train.device",
    "export.target",
    "export.precisions",
    "budget.student_drop",
    "budget.latency_p99_ms",
)
"""What most people set: the keys of `recipes init` without `--all`."""

_HEAD = """\
# A recipe for dskd-compress with every key, its meaning, its range and its default.
# Delete the keys that you do not change. Relative paths count from the working directory.
#
#   dskd-compress recipes check THIS_FILE
#   dskd-compress distill THIS_FILE --dry-run
#   dskd-compress run THIS_FILE --out runs/mine
"""

_SHORT_HEAD = """\
# A recipe for dskd-compress. Start it: dskd-compress run THIS_FILE --out runs/mine
# Relative paths count from the working directory. Every key: dskd-compress recipes init - --all
"""


def recipe_schema() -> dict[str, Any]:
    """Generate the JSON Schema (draft 2020-12) of a recipe, for editors that check and complete YAML."""
    schema = Recipe.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def init_recipe(*, all_keys: bool = False) -> str:
    """Generate a valid recipe of defaults, the meaning of each key in a comment.

    Args:
        all_keys: every key in place of `SHORT_KEYS`; both make the same recipe.
    """
    schema = recipe_schema()
    if not all_keys:
        return _SHORT_HEAD + "\n".join(_write_short(schema)) + "\n"
    lines = list(_write_section(Recipe, schema, schema, indent=0))
    return _HEAD + "\n".join(lines) + "\n"


def _write_short(root: dict[str, Any]) -> Iterator[str]:
    open_section = ""
    for path in SHORT_KEYS:
        section, _, key = path.rpartition(".")
        if section != open_section:
            yield from ("", f"{section}:")
            open_section = section
        model: type[BaseModel] = Recipe
        choices: list[type[Section]] = []
        if section:
            choices = sections_of(Recipe, section)
            default = Recipe.model_fields[section].get_default(call_default_factory=True)
            model = type(default) if isinstance(default, Section) else choices[0]
        yield from _write_short_key(model, key, choices, root, indent=2 if section else 0)


def _write_short_key(
    model: type[BaseModel], key: str, choices: Sequence[type[Section]], root: dict[str, Any], indent: int
) -> Iterator[str]:
    info = field_of(model, key)
    assert info is not None
    schema = root if model is Recipe else root["$defs"][model.__name__]
    value = _REQUIRED[model, key] if info.is_required() else info.get_default(call_default_factory=True)
    limits = _describe_limits(schema["properties"][key])
    if len(choices) > 1 and key == "name":
        limits = f"one of {', '.join(map(tag_of, choices))}"
    about = " ".join(filter(None, (info.description, limits and f"({limits})")))
    line = f"{' ' * indent}{key}: {_write_value(value)}"
    if len(line) + len(about) + 4 <= WIDTH + 2:
        yield f"{line}  # {about}"
    else:
        yield from _write_comment(about, indent)
        yield line


def _write_section(
    model: type[BaseModel], schema: dict[str, Any], root: dict[str, Any], indent: int
) -> Iterator[str]:
    pad = " " * indent
    for name, info in model.model_fields.items():
        key = info.alias or name
        sections = sections_of(model, key)
        required = info.is_required()
        default = _REQUIRED.get((model, key)) if required else info.get_default(call_default_factory=True)
        optional = bool(sections) and may_be_null(model, key)
        if sections and get_origin(info.annotation) is dict:  # sections by names that the recipe chooses
            yield from _write_comment(f"{info.description} (default {{}})", indent)
            yield f"{pad}{key}: {{}}"
            yield from _comment_out(sections[0], "Each of them with the keys:", "NAME", root, indent)
            continue
        if sections and not optional:
            chosen = type(default) if isinstance(default, Section) else sections[0]
            yield from _open_section(key, info.description, chosen, root, indent)
            if len(sections) > 1:
                for other in sections:
                    if other is not chosen:
                        about = f"Alternatively {tag_of(other)}: {_first_line(other)}"
                        yield from _comment_out(other, about, key, root, indent)
            continue
        about = info.description or ""
        below = optional and key in keys_of(Recipe)
        if below:
            about = f"{about}; its keys are those of the section '{key}' below"
        limits = _describe_limits(schema["properties"][key])
        if not required and default is not None and may_be_null(model, key):
            limits = f"{limits}; or null" if limits else "or null"
        otherwise = "required" if required else f"default {_write_value(default)}"
        comment = f"{about} ({'; '.join(part for part in (limits, otherwise) if part)})".strip()
        yield from _write_comment(comment, indent)
        # A key that is written out wins over the preset, so these are left to it.
        by_preset = model is DskdMethod and name in PRESET_KEYS
        yield f"{pad}{'# ' if by_preset else ''}{key}: {_write_value(default)}"
        if optional and not below:
            yield from _comment_out(sections[0], "With its keys:", key, root, indent)


def _open_section(
    key: str, description: str | None, section: type[Section], root: dict[str, Any], indent: int
) -> Iterator[str]:
    if indent == 0:
        yield ""
    yield from _write_comment(description or _first_line(section), indent)
    if section is DskdMethod:
        yield from _write_comment("Keys behind a # come from the preset; remove the # to set them.", indent)
    yield f"{' ' * indent}{key}:"
    yield from _write_section(section, root["$defs"][section.__name__], root, indent + 2)


def _comment_out(section: type[Section], about: str, key: str, root: dict[str, Any], indent: int) -> Iterator[str]:
    yield from _write_comment(about, indent)
    yield f"{' ' * indent}# {key}:"
    for line in _write_section(section, root["$defs"][section.__name__], root, indent + 2):
        yield f"{' ' * indent}# {line[indent:]}"


def _first_line(section: type[Section]) -> str:
    return (section.__doc__ or "").strip().splitlines()[0]


def _write_comment(text: str, indent: int) -> Iterator[str]:
    pad = " " * indent
    return iter(textwrap.wrap(text, WIDTH, initial_indent=f"{pad}# ", subsequent_indent=f"{pad}#   "))


def _write_value(value: Any) -> str:
    return dump_yaml(list(value) if isinstance(value, tuple) else value, flow=True)


_BOUNDS = (
    ("minimum", "at least"),
    ("exclusiveMinimum", "above"),
    ("maximum", "at most"),
    ("exclusiveMaximum", "below"),
    ("minItems", "items at least"),
)


def _describe_limits(schema: dict[str, Any]) -> str:
    """The range or the choices of a value, in words; empty where anything of its type goes."""
    if "anyOf" in schema:
        return "; ".join(filter(None, (_describe_limits(option) for option in schema["anyOf"])))
    if "enum" in schema:
        return "one of " + ", ".join(str(choice) for choice in schema["enum"])
    if schema.get("type") == "array":
        items = schema.get("prefixItems", [schema.get("items", {})])
        each = _describe_limits(items[0])
        count = f"{len(items)} values" if "prefixItems" in schema else "a list"
        return f"{count}, each {each}" if each else count
    bounds = [f"{words} {schema[name]:g}" for name, words in _BOUNDS if name in schema]
    return ", ".join(bounds)
