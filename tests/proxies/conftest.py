"""Networks with proxies in them. Without the programs there is nothing to test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.network import ANY_LONG_TIME_SECONDS, Network, serve_network
from tests.support.proxies import missing_programs


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session", autouse=True)
def _programs_are_installed() -> None:
    missing = missing_programs()
    if missing:
        pytest.skip(f"{' and '.join(missing)} must be installed; as root, make test-proxies does that on Debian")


@pytest.fixture
async def impatient(tmp_path: Path) -> AsyncIterator[Network]:
    """Proxies that close a stream after 3 seconds of silence."""
    async with serve_network(tmp_path, silence_seconds=3) as network:
        yield network


@pytest.fixture
async def patient(tmp_path: Path) -> AsyncIterator[Network]:
    """Proxies that wait for as long as a session is silent."""
    async with serve_network(tmp_path, silence_seconds=ANY_LONG_TIME_SECONDS) as network:
        yield network
