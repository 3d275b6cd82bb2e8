"""The variables of a developer's shell that would change what a test sees."""

from __future__ import annotations

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


def clear(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
