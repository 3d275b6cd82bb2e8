"""What of a developer's machine would change what a test sees: variables of the shell, and the network's names."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest

VARIABLES = (
    "ENCLAVE_BASE_URL",
    "ENCLAVE_API_KEY",
    "ENCLAVE_TOKEN",
    "ENCLAVE_DEBUG",
    "NO_COLOR",
    "PYTEST_ADDOPTS",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
)


def clear_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def refuse_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every name but this machine's own be unknown at once: nobody waits for a name server, or depends on one."""
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        if not is_local(host):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def is_local(host: Any) -> bool:
    """Whether a host is this machine, or an address, so that no name server is asked for it."""
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return True
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
