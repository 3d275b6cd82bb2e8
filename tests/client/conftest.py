"""The two control planes of these tests, scripted bytes and the real simulator, and clients of each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from enclave import EnclaveClient, SessionHandle
from enclave.simulator import Simulator
from tests.support import NO_WAITS
from tests.support.messages import response, session
from tests.support.plane import NOT_SCRIPTED, ControlPlane
from tests.support.wire import refused_port

KEY = "ek_test_secret"


@pytest.fixture
async def server() -> AsyncIterator[ControlPlane]:
    async with ControlPlane(otherwise=NOT_SCRIPTED).serve() as server:
        yield server
        assert server.unused == 0, "answers were scripted that no request came for"


@pytest.fixture
async def client(server: ControlPlane) -> AsyncIterator[EnclaveClient]:
    """A client of the scripted server that retries at once."""
    async with EnclaveClient(server.base_url, api_key=KEY, retry=NO_WAITS) as client:
        yield client


@pytest.fixture
async def handle(server: ControlPlane, client: EnclaveClient) -> SessionHandle:
    """A session that the client has just created. The scripted server is asked for nothing else so far."""
    server.answers(response(session("s-1", phase="pending"), 201))
    handle = await client.run("x")
    server.requests.clear()
    return handle


@pytest.fixture
async def client_once(server: ControlPlane) -> AsyncIterator[EnclaveClient]:
    """A client of the scripted server that tries everything once."""
    async with EnclaveClient(server.base_url, api_key=KEY, retry=None) as client:
        yield client


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator().serve() as sim:
        yield sim


@pytest.fixture
async def sim_client(sim: Simulator) -> AsyncIterator[EnclaveClient]:
    async with EnclaveClient(sim.base_url, api_key=sim.api_key, retry=NO_WAITS) as client:
        yield client


@pytest.fixture
def unused_port() -> Iterator[int]:
    with refused_port() as port:
        yield port
