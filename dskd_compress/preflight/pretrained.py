"""Find timm's pretrained weights on this machine, without asking the network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlparse

import torch

from dskd_compress.config import ModelSection
from dskd_compress.preflight.findings import Findings
from dskd_compress.timm_import import import_timm
from dskd_export.errors import ModelError

_HUB = "hf-hub:"
_FILES = ("model.safetensors", "pytorch_model.bin")  # that timm reads where the model names none
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def inspect_pretrained(section: ModelSection, role: str, found: Findings) -> None:
    """Report pretrained weights that do not exist, or that this run would have to download.

    Args:
        role: teacher or student, for messages.
    """
    places = _list_places(section)
    if places is None or any(place.is_file() for place in places):
        return
    cure = f"Give local weights with --{role}-checkpoint FILE"
    if not places:
        found.add(ModelError(f"timm has no pretrained weights of '{section.name}'.", cure))
    elif reason := explain_no_network():
        what = f"The pretrained weights of '{section.name}' are not in the local cache, and {reason}."
        found.add(ModelError(what, cure))
    else:
        found.warn(f"The pretrained weights of {section.name} are not cached: this run downloads them. {cure}")


def explain_no_network(environment: Mapping[str, str] | None = None, root: Path = Path("/")) -> str | None:
    """Explain why nothing can be downloaded, from what this machine says of itself; None: it may work.

    Args:
        environment: variables of the process; None: the own.
        root: of the file system.
    """
    given = os.environ if environment is None else environment
    if given.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return "HF_HUB_OFFLINE is set"
    if any(given.get(name) or given.get(name.upper()) for name in _PROXIES):
        return None
    routes = [line.split() for name in ("route", "ipv6_route") for line in _read_lines(root / "proc/net" / name)]
    if not routes or any(fields[0] != "lo" and fields[-1] != "lo" for fields in routes):
        return None  # unknown system, or a network
    return "this machine has no network"


def _read_lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    # The first line of /proc/net/route names the columns; without routes it is the only one.
    return ["lo" if line.startswith("Iface") else line for line in lines]


def _list_places(section: ModelSection) -> list[Path] | None:
    """List the files that timm would read, in its cache or not; empty: it has no such weights; None: unknown."""
    if section.name.startswith(_HUB):
        return _list_hub_places(section.name.removeprefix(_HUB), _FILES)
    if ":" in section.name or any(key.startswith(("pretrained_cfg", "cache_dir")) for key in section.kwargs):
        return None
    try:
        config = import_timm().models.get_pretrained_cfg(section.name, allow_unregistered=True)
    except RuntimeError:  # an unknown tag, which creating the model reports
        return None
    if config is None or config.file or config.state_dict:
        return None
    places = []
    if config.hf_hub_id:
        files = (config.hf_hub_filename,) if config.hf_hub_filename else _FILES
        places += _list_hub_places(config.hf_hub_id, files)
    if config.url:
        places.append(Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(config.url).path).name)
    return places


def _list_hub_places(model: str, files: tuple[str, ...]) -> list[Path]:
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = model.partition("@")
    found = [try_to_load_from_cache(repository, file, revision=revision or None) for file in files]
    return [
        Path(path if isinstance(path, str) else f"{repository}/{file}")
        for path, file in zip(found, files, strict=True)
    ]
