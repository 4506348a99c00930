"""Where a command is to run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from dskd_export.errors import UsageError

LOCAL = "local"

# No leading dash: ssh would take it for an option.
_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]*")
_HOST = re.compile(r"[A-Za-z0-9_.:][A-Za-z0-9_.:%-]*")


@dataclass(frozen=True)
class Address:
    """A machine that ssh reaches.

    Attributes:
        host: name, address, or an alias of ssh's own configuration.
        user: None: as ssh's configuration says.
        port: None: as ssh's configuration says.
    """

    host: str
    user: str | None = None
    port: int | None = None

    @property
    def login(self) -> str:
        """As ssh and rsync take it."""
        return self.host if self.user is None else f"{self.user}@{self.host}"

    @property
    def name(self) -> str:
        """For a folder: `orin`, `user@orin-2222`."""
        return self.login.replace(":", "-").replace("%", "-") + ("" if self.port is None else f"-{self.port}")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        login = host if self.user is None else f"{self.user}@{host}"
        return f"ssh://{login}" + ("" if self.port is None else f":{self.port}")


def parse_address(text: str) -> Address | None:
    """Read `ssh://[user@]host[:port]`; None for `local`.

    Raises:
        UsageError: it is neither, or carries a password or a path.
    """
    if text == LOCAL:
        return None
    hint = "Give ssh://user@host, ssh://user@host:port, or local."
    if not text.startswith("ssh://"):
        raise UsageError(f"--device {text}: this is neither {LOCAL} nor an address of ssh.", hint)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"--device {text}: {error}.", hint) from error
    if parts.password is not None:
        raise UsageError(f"--device ssh://{parts.username}:...@{host}: no password is taken.", "Use a key of ssh.")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise UsageError(f"--device {text}: an address has no path.", hint)
    # `hostname` is lower case, and an alias of ssh's configuration may not be.
    written = parts.netloc.rpartition("@")[2]
    host = written[1 : written.index("]")] if written.startswith("[") else written.partition(":")[0]
    if not _HOST.fullmatch(host) or (parts.username is not None and not _NAME.fullmatch(parts.username)):
        raise UsageError(f"--device {text}: this is no name of a user and a host.", hint)
    return Address(host, parts.username, port)
