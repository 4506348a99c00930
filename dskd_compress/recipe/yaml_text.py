"""YAML text -> plain values with the line of every key; nothing in the text is executed or trusted."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from dskd_compress.recipe.faults import Fault, KeyPath

MAX_CHARACTERS = 256 * 1024
MAX_BYTES = 4 * MAX_CHARACTERS  # of UTF-8
MAX_VALUES = 20_000
"""Values after aliases are expanded: a few hundred are normal, an alias bomb has billions."""

_PREFIX = "tag:yaml.org,2002:"
_SCALARS = frozenset(_PREFIX + name for name in ("str", "int", "float", "bool", "null"))
_MERGE = _PREFIX + "merge"


class _Refused(Exception):
    """The text cannot be read at all; carries the fault."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line
        self.what = what


class _Loader(yaml.SafeLoader):
    """The safe loader, and `1e-4` is a number as in YAML 1.2 (1.1 reads it as text)."""

    composed = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose one key or value, and refuse too many of them while they are read: composing is slow."""
        self.composed += 1
        if self.composed > 2 * MAX_VALUES:
            raise _Refused(self.line + 1, f"more than {MAX_VALUES} values")
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    """The safe dumper, which quotes text that our loader would read as a number."""


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        _PREFIX + "float",
        re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
        list("-+.0123456789"),
    )


@dataclass
class YamlText:
    """Value of a text, the lines of its keys, and its faults."""

    value: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def dump_yaml(value: Any, *, flow: bool = False) -> str:
    """Write plain values as YAML text that `parse_yaml` reads back; keys keep their order.

    Args:
        flow: one line without its end, as on a command line, in place of one line a key.
    """
    style, width = (True, 10_000) if flow else (None, 100)
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=style, width=width
    )
    return text.removesuffix("\n").removesuffix("\n...") if flow else text


def parse_yaml(text: str, where: str, *, number_keys: bool = False) -> YamlText:
    """Read one YAML document of mappings, lists, text, numbers, booleans and nulls.

    Args:
        number_keys: take `7: x` as `"7": x`; a recipe has no such keys, and there it is a mistake.

    Returns:
        The value, the 1-based line of each key path, and all faults: syntax, duplicate keys, keys
        that are no text, tags, infinite numbers, aliases that refer to themselves or expand
        without bound. The value is None where the text cannot be read at all.
    """
    result = YamlText()
    try:
        _Reader(where, result, number_keys).read(text)
    except _Refused as refused:
        result.value = None
        result.faults.append(Fault(f"{where}:{refused.line}", (), refused.what))
    except RecursionError:
        result.value = None
        result.faults.append(Fault(where, (), "nested too deeply"))
    return result


class _Reader:
    def __init__(self, where: str, result: YamlText, number_keys: bool) -> None:
        self._where = where
        self._result = result
        self._key_tags = {_PREFIX + "str", *([_PREFIX + "int"] if number_keys else [])}
        self._loader: _Loader
        self._values = 0
        self._open: set[int] = set()

    def read(self, text: str) -> None:
        if len(text) > MAX_CHARACTERS:
            raise _Refused(1, f"larger than {MAX_CHARACTERS // 1024} KiB; this is no recipe")
        try:
            self._loader = _Loader(text)
            node = self._loader.get_single_node()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            context = f" {error.context}" if error.context else ""
            raise _Refused(line, f"not valid YAML: {error.problem}{context}") from error
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise _Refused(line, "not valid YAML: a control character") from error
        if node is not None:
            self._result.value = self._value(node, ())

    def _fault(self, node: yaml.Node, path: KeyPath, what: str) -> None:
        self._result.faults.append(Fault(f"{self._where}:{_line(node)}", path, what))

    def _value(self, node: yaml.Node, path: KeyPath) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _Refused(_line(node), f"more than {MAX_VALUES} values once its aliases are expanded")
        if id(node) in self._open:
            raise _Refused(_line(node), "an alias that refers to itself")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode) and node.tag == _PREFIX + "seq":
                for index, item in enumerate(node.value):
                    self._result.lines[(*path, index)] = _line(item)
                return [self._value(item, (*path, index)) for index, item in enumerate(node.value)]
            if isinstance(node, yaml.MappingNode) and node.tag == _PREFIX + "map":
                return self._mapping(node, path)
        finally:
            self._open.discard(id(node))
        self._fault(node, path, f"the tag {_short(node.tag)} is not allowed here")
        return None

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        if node.tag not in _SCALARS:
            self._fault(node, path, f"{node.value!r} would be read as {_short(node.tag)}; put it in quotes")
            return None
        try:
            value = self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError, KeyError):
            self._fault(node, path, f"{node.value[:40]!r} is not a valid {_short(node.tag)}")
            return None
        if isinstance(value, str) and any("\ud800" <= sign <= "\udfff" for sign in value):
            try:  # JSON, which is YAML too, escapes a character outside the first plane in two halves
                return value.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                self._fault(node, path, f"{value[:40]!a} is not Unicode text")
                return None
        if isinstance(value, float) and not math.isfinite(value):
            self._fault(node, path, f"must be a finite number, not {node.value}")
            return None
        return value

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        # What is merged in comes first, so that keys written out win over it.
        for merged in self._merged(node, path):
            values.update(self._mapping(merged, path))
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                continue
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag not in self._key_tags:
                shown = key_node.value if isinstance(key_node, yaml.ScalarNode) else _short(key_node.tag)
                self._fault(key_node, path, f"the key {shown!r} is not text; put it in quotes")
                continue
            key: str = key_node.value
            here = (*path, key)
            if key in seen:
                self._fault(key_node, here, f"is there twice, first in line {seen[key]}")
                continue
            seen[key] = self._result.lines[here] = _line(key_node)
            values[key] = self._value(value_node, here)
        return values

    def _merged(self, node: yaml.MappingNode, path: KeyPath) -> Iterator[yaml.MappingNode]:
        """Mappings behind `<<`, the one that wins last."""
        for key_node, value_node in node.value:
            if key_node.tag != _MERGE:
                continue
            sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
            for source in reversed(sources):
                self._values += 1
                if self._values > MAX_VALUES:
                    raise _Refused(_line(node), f"more than {MAX_VALUES} values once its aliases are expanded")
                if not isinstance(source, yaml.MappingNode):
                    self._fault(key_node, path, "<< merges mappings only")
                elif id(source) in self._open:
                    raise _Refused(_line(key_node), "an alias that refers to itself")
                else:
                    yield source


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _short(tag: str) -> str:
    return f"!!{tag[len(_PREFIX) :]}" if tag.startswith(_PREFIX) else tag
