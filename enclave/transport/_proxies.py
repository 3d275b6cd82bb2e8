"""The proxy that the environment names for the control plane. Without I/O."""

from __future__ import annotations

import ipaddress
import os
from typing import NamedTuple
from urllib.parse import urlsplit

from enclave.errors import ConfigurationError

from ._credential import Secret

_SCHEMES = ("http", "https", "socks5", "socks5h")


class Proxy(NamedTuple):
    """A proxy, whose URL may hold a password."""

    url: Secret
    variable: str
    """Where it was named."""
    shown: str
    """The URL without user name and password, for messages."""


def proxy_for(base_url: str) -> Proxy | None:
    """The proxy for a URL, as ``HTTPS_PROXY``, ``ALL_PROXY`` and so on name it, or None for a direct connection.

    A host on this machine never has one, or its traffic, credential included, would leave the machine.

    Raises:
        ConfigurationError: there is one that cannot be used. The message names the variable and shows no password.
    """
    parts = urlsplit(base_url)
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if is_loopback(host) or _is_exempt(host, port):
        return None
    variable, url = _named(parts.scheme)
    if url.reveal() is None:
        return None
    problem, shown = _examined(url)
    if problem:
        raise ConfigurationError(f"{variable}: the proxy cannot be used: {problem}")
    return Proxy(url, variable, shown)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or address."""
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    return address is not None and (mapped or address).is_loopback


def _named(scheme: str) -> tuple[str, Secret]:
    for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY"):
        # Under CGI HTTP_PROXY is what the header "Proxy" of a request becomes, which anybody may send.
        if os.environ.get(name) and not (name == "HTTP_PROXY" and "REQUEST_METHOD" in os.environ):
            return name, Secret(_with_scheme(Secret(os.environ[name])))
    from urllib.request import getproxies  # noqa: PLC0415 - imports ssl and more, and only a client that connects asks

    return "the system's settings", Secret(getproxies().get(scheme))


def _with_scheme(url: Secret) -> str:
    return str(url.reveal()) if "://" in str(url.reveal()) else f"http://{url.reveal()}"


def _examined(url: Secret) -> tuple[str, str]:
    """What is wrong with a proxy's URL, if anything is, and what to show of it."""
    if any(not "!" <= char <= "~" for char in str(url.reveal())):
        return "its URL holds a space or another character that no URL can", ""
    try:
        scheme, host, port = _scheme_host_port(url)
    except ValueError as error:
        return str(error).partition(":")[0], ""  # what follows a colon may be a part of the password
    if scheme not in _SCHEMES:
        return f"its scheme must be one of {', '.join(_SCHEMES)}", ""
    if not host:
        return "its URL names no host", ""
    shown = f"[{host}]" if ":" in host else host
    return "", f"{scheme}://{shown}" + ("" if port is None else f":{port}")


def _scheme_host_port(url: Secret) -> tuple[str, str | None, int | None]:
    return (
        urlsplit(str(url.reveal())).scheme,
        urlsplit(str(url.reveal())).hostname,
        urlsplit(str(url.reveal())).port,
    )


def _is_exempt(host: str, port: int) -> bool:
    """Whether ``NO_PROXY`` names the host: by name, domain, address or network, with or without a port."""
    exempt = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    return any(_matches(entry, host.lower(), port) for entry in exempt.lower().replace(",", " ").split())


def _matches(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    network = _network(entry)
    if network is None:
        entry, entry_port = _split_port(entry)
        if entry_port not in ("", str(port)):
            return False
        network = _network(entry.strip("[]"))
    address = _address(host)
    if network is not None:
        return address is not None and address in network
    domain = entry.removeprefix("*").strip(".")
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _split_port(entry: str) -> tuple[str, str]:
    name, colon, port = entry.rpartition(":")
    return (name, port) if colon and port.isdigit() else (entry, "")


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
