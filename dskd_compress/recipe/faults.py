"""Faults of a recipe: all of them at once, each with its place."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from pydantic import BaseModel, ValidationError

from dskd_compress.config import KeyConflict, Recipe, Section
from dskd_compress.recipe.overrides import format_override
from dskd_compress.recipe.sections import all_sections, keys_of, may_be_null, sections_of, tag_of
from dskd_export.errors import RecipeError
from dskd_export.files.field_faults import describe_fault, expectation, format_value
from dskd_export.precision.targets import find_target

KeyPath = tuple[str | int, ...]
"""`("train", "lr")`; list items count from 0."""


_SYNONYMS: dict[KeyPath, Callable[[str], str | None]] = {("export", "target"): find_target}
"""Values that have other names, key -> what finds the one that is meant."""

_ALL_KEYS = "All keys with their meaning and range: dskd-compress recipes init - --all"


@dataclass(frozen=True)
class Fault:
    """One fault: `ORIGIN: section.key: what`."""

    origin: str
    path: KeyPath
    what: str
    way_out: str | None = None  # option that fixes it, where there is one
    instead: str | None = None  # option to give in place of the wrong one, where it is clear

    def __str__(self) -> str:
        key = format_key(self.path)
        return f"{self.origin}: {key}: {self.what}" if key else f"{self.origin}: {self.what}"


def format_key(path: KeyPath) -> str:
    """Format a path: `("data", "augment", "scale", 0)` becomes `data.augment.scale[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def raise_faults(faults: Sequence[Fault], where: str) -> NoReturn:
    """Raise one error that lists every fault."""
    lines = list(dict.fromkeys(str(fault) for fault in sorted(faults, key=_order)))
    text = lines[0] if len(lines) == 1 else "\n".join([f"{where}: {len(lines)} faults", *lines])
    ways = [fault.way_out for fault in faults if fault.way_out]
    others = [fault.instead for fault in faults if fault.instead]
    hint = _ALL_KEYS
    if ways and len(ways) == len(faults):
        hint = f"Add {' '.join(dict.fromkeys(ways))}"
    elif others and len(others) == len(faults):
        hint = f"Use {' '.join(dict.fromkeys(others))}"
    raise RecipeError(text, hint)


def _order(fault: Fault) -> tuple[str, int]:
    name, _, line = fault.origin.rpartition(":")
    return (name, int(line)) if line.isdigit() else (fault.origin, 0)


@dataclass
class Origins:
    """Where each value was written: a line of a file, or an override on the command line."""

    where: str
    lines: dict[KeyPath, int] = field(default_factory=dict)
    overrides: dict[KeyPath, str] = field(default_factory=dict)

    def override(self, path: KeyPath, text: str) -> None:
        """Note that an override sets this key and all below it."""
        for known in [known for known in self.lines if known[: len(path)] == path]:
            del self.lines[known]
        self.overrides[path] = format_override(text)

    def is_set(self, path: KeyPath) -> bool:
        """Check whether an override sets this key, or one below it."""
        return any(key[: len(path)] == path for key in self.overrides)

    def of_conflict(self, path: KeyPath, what: str) -> str:
        """Find the overrides below a section that a message names, else the section's place."""
        named = [
            typed
            for key, typed in self.overrides.items()
            if key[: len(path)] == path
            and len(key) > len(path)
            and re.search(rf"\b{re.escape(str(key[len(path)]))}\b", what)
        ]
        return ", ".join(dict.fromkeys(named)) or self.of(path)

    def of(self, path: KeyPath) -> str:
        """Find the place of a key, or of the nearest section around it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.overrides:
                return self.overrides[path[:length]]
            if path[:length] in self.lines:
                return f"{self.where}:{self.lines[path[:length]]}"
        return f"{self.where}:1" if self.lines else self.where


def list_faults(
    error: ValidationError, settings: Mapping[str, Any], origins: Origins, root: type[Section] = Recipe
) -> list[Fault]:
    """Translate a validation error into words that name each key as it is written in the recipe."""
    found: dict[KeyPath, list[tuple[Mapping[str, Any], list[type[Section]]]]] = {}
    for details in error.errors(include_url=False):
        path, owners = _resolve(details["loc"], settings, root)
        found.setdefault(path, []).append((details, owners))
    faults = []
    for path, entries in found.items():
        if any(len(other) > len(path) and other[: len(path)] == path for other in found):
            continue  # of the kinds that a value may have it is the one whose items are wrong
        words = [_what(details, path, owners) for details, owners in entries]
        # A word may also stand in the place of the whole list.
        lists = [details for details, _ in found.get(path[:-1], []) if details["type"] == "literal_error"]
        words = [
            f"{word} (or {expectation(one).removeprefix('must be ')} alone)" for word in words for one in lists
        ] or words
        faults.append(_fault(entries[0][0], path, _either(words, [details for details, _ in entries]), origins))
    return faults


def _either(words: Sequence[str], entries: Sequence[Mapping[str, Any]]) -> str:
    """One sentence for a value that is none of the kinds that it may be."""
    if len(words) == 1:
        return words[0]
    wanted = dict.fromkeys(expectation(details).removeprefix("must be ") for details in entries)
    *first, last = wanted
    return (
        f"must be {', '.join(first)} or {last}, not {format_value(entries[0].get('input'))}" if first else words[0]
    )


def _fault(details: Mapping[str, Any], path: KeyPath, what: str, origins: Origins) -> Fault:
    """A fault with its place; of keys that do not go together also a setting of one that the line did not set."""
    if details["type"] != "value_error":
        return Fault(origins.of(path), path, what, instead=_correct(details, path, what, origins))
    error = details["ctx"]["error"]
    ways = error.ways_out if isinstance(error, KeyConflict) else ()
    free = [way for way in ways if not origins.is_set((*path, way.partition("=")[0]))]
    way_out = f"--set {format_key((*path, (free or ways)[0]))}" if ways else None
    return Fault(origins.of_conflict(path, what), path, what, way_out)


def _correct(details: Mapping[str, Any], path: KeyPath, what: str, origins: Origins) -> str | None:
    """Correct the option of the command line that made a fault, where the message names one thing meant."""
    kind = details["type"]
    key = (*path, "name") if kind == "union_tag_invalid" else path
    typed, meant = origins.overrides.get(key, ""), _MEANT.findall(what)
    if not typed.startswith("--") or len(meant) != 1 or kind not in _CORRECTED:
        return None
    if kind == "extra_forbidden":
        start = f"--set {format_key(path)}="
        full = meant[0] if "." in meant[0] else format_key((*path[:-1], meant[0]))
        return f"--set {full}={typed.removeprefix(start)}" if typed.startswith(start) else None
    flag = f"--set {format_key(key)}=" if typed.startswith("--set ") else f"{typed.split()[0]} "
    return f"{flag}{meant[0]}"


_CORRECTED = frozenset(("extra_forbidden", "literal_error", "union_tag_invalid"))
_MEANT = re.compile(r"did you mean '([^']+)'\?")


def close_match(word: object, known: Iterable[str], least: float = 0.6) -> str:
    """Write `, did you mean 'x'?` where one of the known words is close, else nothing."""
    close = difflib.get_close_matches(str(word), list(known), n=1, cutoff=least)
    return f", did you mean '{close[0]}'?" if close else ""


def _resolve(
    loc: KeyPath, settings: Mapping[str, Any], root: type[Section]
) -> tuple[KeyPath, list[type[Section]]]:
    """A validator's location -> the key path as written, and the sections that own its last key.

    The location also names the branch of a union, such as the chosen method, which no recipe spells.
    """
    path: KeyPath = ()
    owners: list[type[Section]] = []
    below: list[type[Section]] = [root]
    value: Any = settings
    for part in loc:
        if len(below) > 1:
            below = [section for section in below if tag_of(section) == part]
            continue
        inside = isinstance(value, Mapping) and part in value
        if not below and not inside and not isinstance(part, int):
            continue
        path, owners = (*path, part), below
        below = sections_of(below[0], part) if below else []
        value = value[part] if inside else None
    return path, owners


def _what(details: Mapping[str, Any], path: KeyPath, owners: Sequence[type[Section]]) -> str:
    kind, given = details["type"], details.get("input")
    if kind == "extra_forbidden":
        return _unknown_key(path, owners, given)
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"must be a section of 'key: value' lines, not {format_value(given)}"
    if kind == "union_tag_invalid":
        names = [tag_of(section) for section in sections_of(Recipe, path[-1])]
        tag = details["ctx"]["tag"]
        return f"there is no method '{tag}'{close_match(tag, names)} (one of {', '.join(names)})"
    what = describe_fault(details)
    if kind == "literal_error":
        known = details["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        find = _SYNONYMS.get(path)
        synonym = None if find is None else find(str(given))
        meant = f", did you mean '{synonym}'?" if synonym else close_match(given, known)
        return f"{expectation(details)}{meant}" if meant else what
    return what


def _unknown_key(path: KeyPath, owners: Sequence[type[Section]], given: Any) -> str:
    key = str(path[-1])
    kind = "section" if len(path) == 1 and isinstance(given, Mapping) else "key"
    known = keys_of(owners[0]) if owners else []
    elsewhere = _same_key_elsewhere(key)
    # A slip of the pen first, then the same key in another section. A key without its section is no slip.
    meant = "" if len(path) == 1 and elsewhere else close_match(key, known, least=0.8)
    if not meant and len(path) == 1 and kind == "key":
        every = {one for _, section in all_sections(Recipe) for one in keys_of(section)}
        near = difflib.get_close_matches(key, sorted(every), n=1, cutoff=0.8)
        elsewhere = elsewhere or [one for found in near for one in _same_key_elsewhere(found)]
    if not meant and elsewhere:
        *first, last = [repr(one) for one in elsewhere[:_MOST_MEANT]]
        meant = f", did you mean {', '.join(first)}{' or ' if first else ''}{last}?"
    one_of = f" (one of {', '.join(known)})"
    return f"unknown {kind}{meant or close_match(key, known) or one_of}"


_MOST_MEANT = 3


def _same_key_elsewhere(key: str) -> list[str]:
    """List the places of a key that are the most usual: nearest to the top, in sections that every recipe has."""
    places = dict.fromkeys((*place, key) for place, section in all_sections(Recipe) if key in keys_of(section))
    ranks = {place: (_is_optional(place[:-1]), len(place)) for place in places}
    return [format_key(place) for place, rank in ranks.items() if rank == min(ranks.values())]


def _is_optional(section: tuple[str, ...]) -> bool:
    """Whether a section is null by default, or lies in one that is."""
    model: type[BaseModel] = Recipe
    for key in section:
        if may_be_null(model, key):
            return True
        model = sections_of(model, key)[0]
    return False
