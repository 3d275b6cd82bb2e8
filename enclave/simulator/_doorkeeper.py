"""Which requests of a browser are let in, so that no page of somebody else's can drive the simulator.

A browser sends requests to loopback for any page that its user has open. It says which page that is, in ``Origin``, and
by which name it found the server, in ``Host``. A page can also have its own name resolve to a loopback address (DNS
rebinding), and only ``Host`` shows that. Clients that are no browsers send no ``Origin``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit


class Doorkeeper:
    """Looks at where a request comes from, and by which name it was sent."""

    def __init__(self) -> None:
        self._host: str | None = None  # the loopback host that is served. None where any name may lead here

    def served_at(self, base_url: str | None) -> None:
        """Note where the simulator is served."""
        host = urlsplit(base_url or "").hostname
        self._host = host if host is not None and is_loopback(host) else None

    def problem_with(self, headers: Mapping[str, str]) -> str | None:
        """Why a request is refused, or None."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if origin is not None and origin.lower() != f"http://{host}".lower():
            return f"origin: {origin[:200]} may not use this simulator"
        if self._host is not None and not is_loopback(_name(host)):
            return f"host: {host[:200]} is not this machine. Use http://127.0.0.1 with the port"
        return None


def is_loopback(host: str) -> bool:
    """Whether a name or an address can only be this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str:
    """The name or address of a ``Host`` header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
