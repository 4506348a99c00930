"""timm's pretrained weights: in the local cache, else from the hub, without waiting for a network that is missing.

timm itself asks the hub even for cached weights, and repeats a failed request for almost a minute.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from torch import nn

from dskd_compress.timm_import import import_timm
from dskd_export.errors import ModelError

_HUB = "hf-hub:"
_REACH_S = 5.0  # a slow network answers a request for headers in one second
Availability = Literal["cached", "missing", "none", "unknown"]
"""Of pretrained weights; missing: a download may bring them; none: timm has none; unknown: only timm can tell."""

# Who gives one of these says where the weights are.
_OWN_SOURCE = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


def find_pretrained_cfg(name: str) -> Any:
    """Find timm's configuration of an architecture's weights; None: unknown name or tag, or one of the hub."""
    if ":" in name:  # known only after the configuration is fetched
        return None
    try:
        return import_timm().models.get_pretrained_cfg(name, allow_unregistered=True)
    except RuntimeError:  # an unknown tag, which `create_model` reports
        return None


def find_fixed_input(name: str) -> int | None:
    """Find the default image height of an architecture of fixed input; None: it takes any size."""
    config = find_pretrained_cfg(name)
    return int(config.input_size[1]) if config is not None and config.fixed_input_size else None


def architecture(model: nn.Module) -> str:
    """Get timm's name of a model, without its pretrained tag."""
    config = getattr(model, "pretrained_cfg", None) or {}
    return str(config.get("architecture") or type(model).__name__)


def use_local_files(name: str, arguments: Mapping[str, Any], *, weights: bool) -> tuple[str, dict[str, Any]]:
    """Make `timm.create_model` read files of the local cache; what is missing there is downloaded first.

    Args:
        name: of timm, with or without a tag, or `hf-hub:OWNER/NAME`.
        arguments: of `timm.create_model`.
        weights: whether the pretrained weights are needed, or only the model.

    Returns:
        The name and the arguments to call it with.

    Raises:
        ModelError: there are no such weights, or they are not cached and cannot be downloaded.
    """
    changed = dict(arguments)
    if name.startswith(_HUB) and not _names_own_source(arguments):
        place = name.removeprefix(_HUB)
        config = _fetch_from_hub(place, ("config.json",))
        if weights:
            _fetch_from_hub(place, _list_files(None))
        return f"local-dir:{config.parent}", changed
    source = _find_source(name, arguments) if weights else None
    if source is None:
        return name, changed
    if source.repository:
        file = _fetch_from_hub(source.repository, source.files)
    elif source.url:
        file = _fetch_from_url(source.url)
    else:
        raise ModelError(f"timm has no pretrained weights of {name}.")
    return name, {**changed, "pretrained_cfg_overlay": {"file": str(file)}}


def find_availability(name: str, arguments: Mapping[str, Any]) -> Availability:
    """Find whether pretrained weights are on this machine, without asking the network; arguments as above."""
    source = _find_source(name, arguments)
    if source is None:
        return "unknown"
    if source.repository:
        return "missing" if _find_cached(source.repository, source.files) is None else "cached"
    if source.url:
        return "cached" if _locate_download(source.url).is_file() else "missing"
    return "none"


@dataclass(frozen=True)
class _Source:
    """Where weights come from: files of a repository, the first preferred, or a URL; neither: there are none."""

    repository: str = ""
    files: tuple[str, ...] = ()
    url: str = ""


def _names_own_source(arguments: Mapping[str, Any]) -> bool:
    return any(key in arguments for key in _OWN_SOURCE)


def _find_source(name: str, arguments: Mapping[str, Any]) -> _Source | None:
    """Find where timm's weights come from; None: only timm knows, or has an error for this name."""
    if _names_own_source(arguments):
        return None
    if name.startswith(_HUB):
        return _Source(name.removeprefix(_HUB), _list_files(None))
    config = find_pretrained_cfg(name)
    if config is None or config.custom_load or config.file or config.state_dict:
        return None
    if config.hf_hub_id:
        return _Source(config.hf_hub_id, _list_files(config.hf_hub_filename))
    return _Source(url=config.url or "")


def is_offline() -> bool:
    """Check whether the user allows no network: `HF_HUB_OFFLINE`."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _list_files(name: str | None) -> tuple[str, ...]:
    """List the names of a weights file on the hub, the safe ones first, as timm does."""
    if name is None:
        return ("model.safetensors", "pytorch_model.bin")
    safe = "open_clip_model.safetensors" if name == "open_clip_pytorch_model.bin" else None
    return (name,) if safe is None else (safe, name)


def _fetch_from_hub(model: str, files: tuple[str, ...]) -> Path:
    from huggingface_hub import hf_hub_download, hf_hub_url
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    repository, revision = _split_revision(model)
    try:
        if (cached := _find_cached(model, files)) is not None:
            return cached
        _require_network(hf_hub_url(repository, files[0], revision=revision))
        with quiet_hub():
            for file in files:
                try:
                    return Path(hf_hub_download(repository, file, revision=revision))
                except LocalEntryNotFoundError:  # the network failed; a subclass of the next
                    raise
                except EntryNotFoundError:
                    continue
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(f"{repository} cannot be downloaded: {read_first_line(error)}") from error
    raise ModelError(f"{repository} on the hub has none of {', '.join(files)}.")


def _find_cached(model: str, files: tuple[str, ...]) -> Path | None:
    """Find the first of some files of a hub's model in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    repository, revision = _split_revision(model)
    found = (try_to_load_from_cache(repository, file, revision=revision) for file in files)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def _split_revision(model: str) -> tuple[str, str | None]:
    repository, _, revision = model.partition("@")
    return repository, revision or None


def _locate_download(url: str) -> Path:
    """Locate the file that timm downloads a URL to."""
    import_timm()
    from timm.models._hub import get_cache_dir

    return Path(get_cache_dir()) / Path(urlparse(url).path).name


def _fetch_from_url(url: str) -> Path:
    file = _locate_download(url)
    from timm.models._hub import download_cached_file

    if not file.is_file():
        _require_network(url)
        try:
            download_cached_file(url)
        except (OSError, RuntimeError) as error:
            raise ModelError(f"{url} cannot be downloaded: {read_first_line(error)}") from error
    return file


def _require_network(url: str) -> None:
    """Ask once for the headers of a file; a resolver may hang for longer than any timeout of a connection.

    Raises:
        ModelError: no answer in time, or the network is switched off.
    """
    from huggingface_hub import get_session

    host = urlparse(url).hostname
    if is_offline():
        raise ModelError("not in the local cache, and HF_HUB_OFFLINE is set.")
    answers: list[str] = []

    def ask() -> None:
        try:
            get_session().head(url, timeout=_REACH_S)
        except Exception as error:  # whatever its client raises: there is no answer
            answers.append(read_first_line(error))
        else:
            answers.append("")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_REACH_S)
    if answers != [""]:
        reason = answers[0] if answers else f"no answer in {_REACH_S:.0f} s"
        raise ModelError(f"not in the local cache, and {host} cannot be reached ({reason}).")


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Keep the hub's log of failed requests off the terminal: the error that follows explains them."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def read_first_line(error: BaseException) -> str:
    """Read the first line of an error's text, else its class."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
