"""Clients on our own transport alone, and what can be seen of its pool."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import anyio

from enclave.transport._messages import Headers, Request, Response, Timeouts
from enclave.transport._time_limit import TimeLimit
from enclave.transport.http11 import OriginTransport
from tests.support import PATIENCE_SECONDS
from tests.support.wire import Server


def open_sockets() -> int:
    """How many descriptors of this process are sockets. Event loops keep others of their own, as long as they like."""
    count = 0
    for descriptor in Path("/dev/fd").iterdir():
        with suppress(OSError):  # the one that lists the directory is closed by now
            count += stat.S_ISSOCK(os.fstat(int(descriptor.name)).st_mode)
    return count


class Answer(NamedTuple):
    """A response that was read to its end."""

    response: Response
    content: bytes

    @property
    def status(self) -> int:
        return self.response.status


class Client:
    """Sends requests over our transport and reads their responses."""

    def __init__(self, transport: OriginTransport, seconds: float | None = PATIENCE_SECONDS) -> None:
        self.transport = transport
        self.seconds = seconds

    def request(
        self,
        method: str,
        target: str = "/",
        *,
        headers: Headers | None = None,
        content: bytes | None = None,
        is_stream: bool = False,
        **timeouts: float | None,
    ) -> Request:
        each = Timeouts(self.seconds, self.seconds, self.seconds, self.seconds)._replace(**timeouts)
        return Request(method, target, headers or [], content=content, is_stream=is_stream, timeouts=each)

    async def send(self, method: str, target: str = "/", **options: Any) -> Response:
        return await self.transport.send(self.request(method, target, **options))

    @asynccontextmanager
    async def stream(self, method: str = "GET", target: str = "/", **options: Any) -> AsyncIterator[Response]:
        response = await self.send(method, target, **options)
        try:
            yield response
        finally:
            await response.body.aclose()

    async def exchange(self, method: str, target: str = "/", **options: Any) -> Answer:
        async with self.stream(method, target, **options) as response:
            return Answer(response, await read_all(response))

    async def get(self, target: str = "/", **options: Any) -> Answer:
        return await self.exchange("GET", target, **options)

    async def post(self, target: str = "/", **options: Any) -> Answer:
        return await self.exchange("POST", target, **{"content": b"", **options})


async def read_all(response: Response) -> bytes:
    pieces = []
    while piece := await response.body.read():
        pieces.append(piece)
    return b"".join(pieces)


@asynccontextmanager
async def client_of(
    server: Server | str, *, seconds: float | None = PATIENCE_SECONDS, **options: Any
) -> AsyncIterator[Client]:
    transport = OriginTransport(server if isinstance(server, str) else server.origin, **options)
    try:
        yield Client(transport, seconds)
    finally:
        with anyio.CancelScope(shield=True):
            await transport.aclose()


def pool_of(client: Client):
    return client.transport._pool


async def dial(client: Client):
    """A new connection of its pool, which nothing was sent over."""
    with TimeLimit(client.seconds, "no connection was made") as limit:
        return await pool_of(client).dial(None, limit)


def assert_whole(client: Client) -> None:
    """Every slot is free, nobody waits, and the only open connections are idle ones."""
    pool = pool_of(client)
    assert pool.slots.free == pool.slots.total
    assert pool.slots.waiting == 0
    assert set(pool.idle) == pool.open
