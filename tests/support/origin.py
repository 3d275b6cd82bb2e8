"""httpx clients on our own transport, and what can be seen of its pool."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest

from enclave.transport.http11 import OriginTransport
from tests.support.wire import Server

AS_STREAM = {"enclave.stream": True}

anyio_stops_reading_when_cancelled = pytest.mark.skipif(
    tuple(int(part) for part in version("anyio").split(".")[:2]) < (4, 16),
    reason="before 4.16, anyio on asyncio reads on after a cancelled receive, and takes a reset for an end",
)


def open_sockets() -> int:
    """How many descriptors of this process are sockets. Event loops keep others of their own, as long as they like."""
    count = 0
    for descriptor in Path("/dev/fd").iterdir():
        with suppress(OSError):  # the one that lists the directory is closed by now
            count += stat.S_ISSOCK(os.fstat(int(descriptor.name)).st_mode)
    return count


@asynccontextmanager
async def client_of(server: Server, **options: object) -> AsyncIterator[httpx.AsyncClient]:
    """An httpx client on our transport."""
    timeout = options.pop("timeout", httpx.Timeout(5.0))
    transport = OriginTransport(server.origin, **options)  # type: ignore[arg-type]
    client = httpx.AsyncClient(transport=transport, base_url=server.origin, timeout=timeout, trust_env=False)
    async with client:
        yield client


def pool_of(client: httpx.AsyncClient):
    return client._transport._pool


def assert_whole(client: httpx.AsyncClient) -> None:
    """Every slot is free, nobody waits, and the only open connections are idle ones."""
    pool = pool_of(client)
    assert pool.slots.free == pool.slots.total
    assert pool.slots.waiting == 0
    assert set(pool.idle) == pool.open
