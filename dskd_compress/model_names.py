"""What somebody meant who gave a name that timm has not: a file, a page, another library's name, a slip."""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from dskd_compress.names import WEIGHTS_SUFFIXES
from dskd_compress.timm_import import import_timm
from dskd_export.errors import ModelError

Role = Literal["teacher", "student"]

_SOURCES = ("hf-hub", "hf_hub", "local-dir")  # timm's own prefixes
_HUB = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<owner>[^/\s]+)/(?P<name>[^/\s?#]+)")
_SHOWN = 3


def check_name(name: str, role: Role) -> None:
    """Refuse a name that timm has not, before anything is loaded or fetched.

    Raises:
        ModelError: names what was given instead, with the flags that are right for it.
    """
    flag, (source, colon, rest) = f"--{role}", name.partition(":")
    if colon and source.lower() in _SOURCES:
        if not rest:
            raise ModelError(f"{role}.name: '{name}' names no repository.", f"Use {flag} hf-hub:OWNER/NAME")
        return
    if (page := _HUB.match(name)) is not None:
        raise ModelError(f"'{name}' is a page, not a model name.", _advise_repository(page[1], page[2], flag))
    if "://" in name:
        file = Path(name).name or "FILE"
        hint = f"Download it, then: {flag} {_name_in(file) or 'NAME'} {flag}-checkpoint {shlex.quote(file)}"
        raise ModelError(f"'{name}' is an address, not a model name.", hint)
    if name.lower().endswith(WEIGHTS_SUFFIXES) or _is_file(Path(name)):
        raise ModelError(f"'{name}' is a file, not a model name.", _advise_file(Path(name), flag))
    if "/" in name or "\\" in name:
        raise ModelError(f"timm {import_timm().__version__} has no model '{name}'.", _advise_path(name, flag))
    known = import_timm().is_model(name.partition(".")[0])
    if not known:
        raise ModelError(f"timm {import_timm().__version__} has no model '{name}'.", advise_name(name))
    architecture, _, tag = name.partition(".")
    if tag and tag not in (tags := list_tags(architecture)):
        longer = [one for one in tags if one.startswith(tag)]
        close = (longer or difflib.get_close_matches(tag, tags, n=_SHOWN, cutoff=0.0))[:_SHOWN]
        meant = ", ".join(f"{architecture}.{one}" for one in close)
        raise ModelError(
            f"timm {import_timm().__version__} has no weights '{name}'.",
            f"Did you mean {meant}?" if meant else f"Leave the tag out: {flag} {architecture}",
        )


def advise_name(name: str) -> str:
    """Write the hint for a name that timm has not: the closest names, else the command that lists all."""
    close = find_close(name)
    return f"Did you mean {', '.join(close)}?" if close else "See: dskd-compress models list"


def find_close(name: str) -> list[str]:
    """Find timm's names for what was meant, the likeliest first; one alone where only the spelling differs."""
    names = import_timm().list_models()
    given = _squeeze(name)
    if not given:
        return []
    squeezed = {one: _squeeze(one) for one in names}
    if same := [one for one, text in squeezed.items() if text == given]:
        return same[:1]
    pretrained = set(import_timm().list_models(pretrained=True))

    def ordered(found: Sequence[str]) -> list[str]:
        # Of names of one length `_100` is timm's width 1.0, which other libraries do not write.
        return sorted(found, key=lambda one: (one not in pretrained, len(one), "_100" not in one, one))[:_SHOWN]

    longer = [one for one, text in squeezed.items() if text.startswith(given)]
    shortened = [one for one in names if _is_short_for(name, one)]
    if longer or shortened:
        return list(dict.fromkeys([*ordered(longer), *ordered(shortened)]))[:_SHOWN]
    of_text = {text: one for one, text in reversed(squeezed.items())}
    return [of_text[text] for text in difflib.get_close_matches(given, of_text, n=_SHOWN, cutoff=0.6)]


def list_tags(architecture: str) -> list[str]:
    """List the tags of timm's weights of an architecture: `resnet18` has `a1_in1k` and others."""
    names = import_timm().list_models(f"{architecture}.*", pretrained=True)
    return [name.partition(".")[2] for name in names]


def _squeeze(name: str) -> str:
    """The letters and digits of a name: `ResNet-50`, `resnet_50` and `resnet50` are one."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _is_short_for(given: str, name: str) -> bool:
    """Whether each word of a name, in order, begins a word of the other: `vit_b_16` of `vit_base_patch16_224`."""
    words = re.findall(r"[a-z]+|\d+", given.lower())
    rest: Iterator[str] = iter(re.findall(r"[a-z]+|\d+", name))
    first = re.match(r"[a-z]+", name)
    if len(words) < 2 or first is None or first[0] != words[0]:
        return False
    return all(any(one.startswith(word) for one in rest) for word in words)


def _advise_file(path: Path, flag: str) -> str:
    name = _name_in_metadata(path) or _name_in(path.name)
    hint = f"{flag} {name or 'NAME'} {flag}-checkpoint {shlex.quote(str(path))}"
    return f"Use {hint}" if name else f"Use {hint} (all names: dskd-compress models list)"


def _advise_path(name: str, flag: str) -> str:
    path = Path(name)
    if _is_file(path / "config.json"):
        return f"Use {flag} local-dir:{shlex.quote(name)}"
    weights = [path / file for file in ("student.safetensors", "teacher.safetensors", "model.safetensors")]
    if (found := next((one for one in weights if _is_file(one)), None)) is not None:
        return _advise_file(found, flag)
    owner, _, repository = name.replace("\\", "/").rpartition("/")
    return _advise_repository(owner, repository, flag)


def _advise_repository(owner: str, repository: str, flag: str) -> str:
    """Advise on a repository: timm's own is a name, torchvision's weights have a tag, others are not timm's."""
    if not owner or not repository:
        return advise_name(repository)
    if owner.lower() == "timm":
        return f"Use {flag} {repository}"
    close = find_close(repository)
    if not close:
        return f"Weights of timm on the Hub: {flag} hf-hub:{owner}/{repository}"
    if owner.lower() in ("torchvision", "pytorch"):
        for one in close:
            tags = [tag for tag in list_tags(one) if re.fullmatch(r"tv\d*_.*", tag)]
            if tags:
                return f"Use {flag} {one}.{tags[0]} (weights of torchvision)"
    return f"Use {flag} {close[0]}. If the repository holds weights of timm: {flag} hf-hub:{owner}/{repository}"


def _is_file(path: Path) -> bool:
    """Whether there is a file; what cannot be a path is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _name_in(file: str) -> str | None:
    """Find timm's name at the beginning of a file's name: `resnet50-0676ba61.pth`; the longest."""
    stem = file.partition(".")[0]
    ends = [match.start() for match in re.finditer(r"[_-]|$", stem)]
    timm = import_timm()
    return next((stem[:end] for end in reversed(ends) if timm.is_model(stem[:end])), None)


def _name_in_metadata(path: Path) -> str | None:
    """Find timm's name in the metadata of a safetensors file, whoever wrote it."""
    try:
        with safe_open(str(path), framework="pt") as file:
            values = dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return None
    for value in (*values.values(), json.dumps(values)):
        try:
            found: Any = json.loads(value)
        except ValueError:
            continue
        for key in ("architecture", "name", "model"):
            name = found.get(key) if isinstance(found, dict) else None
            if isinstance(name, str) and import_timm().is_model(name.partition(".")[0]):
                return name.partition(".")[0]
    return None
