"""Where the control plane is: what to look up, what to connect to, and what to call it. Without I/O."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Scheme, host and port of a URL."""

    is_tls: bool
    host: str
    """A name in its ASCII form, or an address without brackets."""
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """The origin of a URL. The rest of it does not matter.

        Raises:
            ValueError: it is not an ``http`` or ``https`` URL with a host, or its port or host cannot be.
        """
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ValueError("an origin is an http or https URL with a host")
        port = _DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
        # RFC 6874 writes the percent sign of a zone as %25, and people write it as it is.
        address, percent, zone = parts.hostname.partition("%")
        zone = zone.removeprefix("25") or zone
        return cls(parts.scheme == "https", address + percent + zone if percent else _ascii(parts.hostname), port)

    @property
    def address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The host as an address, or None if it is a name."""
        try:
            return ipaddress.ip_address(self.host.partition("%")[0])
        except ValueError:
            return None

    @property
    def server_name(self) -> str:
        """The name to verify a certificate for: without the dot that ends a full name, and without an IPv6 zone."""
        return self.host.rstrip(".").partition("%")[0]

    @property
    def zone(self) -> str:
        """The zone of a link-local IPv6 address, as ``eth0``. It is mostly empty."""
        return self.host.partition("%")[2]

    @property
    def peer(self) -> str:
        """Host and port, for messages."""
        return f"{self._bracketed}:{self.port}"

    @property
    def authority(self) -> bytes:
        """The value of the ``Host`` header."""
        is_default = self.port == (443 if self.is_tls else 80)
        host = (
            f"[{self.server_name}]" if ":" in self.host else self.host
        )  # a zone means something to this machine alone
        return (host if is_default else f"{host}:{self.port}").encode("ascii")

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


def _ascii(host: str) -> str:
    if host.isascii():
        return host
    import httpx  # noqa: PLC0415 - knows IDNA, is seldom needed, and slow to load

    try:
        return httpx.URL(scheme="http", host=host).raw_host.decode("ascii")
    except httpx.InvalidURL as error:
        raise ValueError(str(error)) from None
