"""Addresses of machines."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from dskd_export.errors import UsageError

LOCAL = "local"

# Everything up to the host is optional, and nothing is dropped on the way, as urllib drops line feeds.
_ADDRESS = re.compile(
    r"ssh://(?:(?P<user>[^@]*)@)?(?:\[(?P<ip>[^]]*)\]|(?P<host>[^:@/?#\[\]]*))(?::(?P<port>[^/?#]*))?(?P<rest>.*)",
    re.DOTALL,
)
# No leading dash: ssh would take it for an option. No leading dot: the host names a folder.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]|\.(?=[A-Za-z0-9_]))*")
_ZONE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Address:
    """A machine reached by ssh.

    Attributes:
        host: name, address, or an alias of ssh's own configuration.
        user: None: from ssh's configuration.
        port: None: from ssh's configuration.
    """

    host: str
    user: str | None = None
    port: int | None = None

    @property
    def login(self) -> str:
        """In the form of ssh and rsync."""
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
    shown = re.sub(r"(?s)^((?:\w+://)?[^:@]*):(?!//).*@", r"\1:...@", text)  # a password is not repeated
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise UsageError(f"--on {shown}: this is neither {LOCAL} nor an ssh address.", hint)
    user, host, port = found["user"], found["host"], found["port"]
    if user is not None and ":" in user:
        raise UsageError(f"--on {shown}: passwords are not accepted.", "Use an ssh key.")
    if found["rest"] not in ("", "/"):
        raise UsageError(f"--on {shown}: an address has no path.", hint)
    if (user is not None and not _NAME.fullmatch(user)) or not (
        _HOST.fullmatch(host) if host else _is_ip(found["ip"])
    ):
        raise UsageError(f"--on {shown}: the user or host name is not valid.", hint)
    if port is not None and not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise UsageError(f"--on {shown}: a port is a number from 1 to 65535.", hint)
    return Address(host or found["ip"], user, None if port is None else int(port))


def _is_ip(text: str | None) -> bool:
    """Whether brackets hold an IPv6 address, which may name its network interface: `fe80::1%eth0`."""
    address, percent, zone = (text or "").partition("%")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return not percent or _ZONE.fullmatch(zone) is not None
