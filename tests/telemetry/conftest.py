"""A simulator, and a server that keeps the heads of the requests it gets, for both loops."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest
from anyio.abc import SocketAttribute

from enclave.simulator import Simulator
from tests.support.spans import Tracing
from tests.support.telemetry_server import HeadKeeper


@pytest.fixture
def tracing() -> Tracing:
    return Tracing()


@pytest.fixture(autouse=True)
def _no_context_is_detached_elsewhere(caplog):
    yield
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator().serve() as sim:
        yield sim


@pytest.fixture
async def keeper() -> AsyncIterator[HeadKeeper]:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    keeper = HeadKeeper(f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, keeper.serve)
        yield keeper
        tasks.cancel_scope.cancel()
