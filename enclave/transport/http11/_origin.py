"""Where the control plane is: what to look up, what to connect to, and what to call it. Without I/O."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_PORT = 65_535


class Origin(NamedTuple):
    """Scheme, host and port of a URL."""

    is_tls: bool
    host: str
    """A name in its ASCII form, or an address without brackets."""
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """The origin of a URL; the rest of it does not matter.

        Raises:
            ValueError: it is not an ``http`` or ``https`` URL with a host, or its port or host cannot be.
        """
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ValueError("an origin is an http or https URL with a host")
        port = _DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
        if port > _MAX_PORT:
            raise ValueError(f"port {port} does not exist")
        return cls(parts.scheme == "https", _ascii(parts.hostname), port)

    @property
    def address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The host where it is an address; None where it is a name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    @property
    def peer(self) -> str:
        """Host and port, for messages."""
        return f"{self._bracketed}:{self.port}"

    @property
    def authority(self) -> bytes:
        """The value of the ``Host`` header."""
        is_default = self.port == (443 if self.is_tls else 80)
        return (self._bracketed if is_default else self.peer).encode("ascii")

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


def _ascii(host: str) -> str:
    if host.isascii():
        return host
    import httpx  # noqa: PLC0415 - knows IDNA; seldom needed, and slow to load

    try:
        return httpx.URL(scheme="http", host=host).raw_host.decode("ascii")
    except httpx.InvalidURL as error:
        raise ValueError(str(error)) from None
