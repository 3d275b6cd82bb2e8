"""What a proxy connects to: a port in front of a server in this process, which counts connections and can cut them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Self

import anyio
from anyio.abc import SocketAttribute, SocketStream

MAX_CONNECTIONS_WAITING = 1024


class Upstream:
    """Passes each connection on to a port of this machine.

    With `http="1.0"` the proxy and the server each take the other for an old one, so that a response has no chunks and
    ends with its connection.
    """

    def __init__(self, server_port: int, *, http: str = "1.1") -> None:
        self.port = 0
        """Where it listens, once it does."""
        self.open_connections = 0
        """How many connections of the proxy are open now."""
        self.refused = 0
        """How many connections found the server gone."""
        self._server_port = server_port
        self._is_http_10 = http == "1.0"
        self._is_gone = False
        self._scopes: set[anyio.CancelScope] = set()
        self._changed = anyio.Event()

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[Self]:
        """Listen while the block runs."""
        async with await anyio.create_tcp_listener(local_host="127.0.0.1", backlog=MAX_CONNECTIONS_WAITING) as listener:
            self.port = listener.extra(SocketAttribute.local_port)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listener.serve, self._serve)
                yield self
                tasks.cancel_scope.cancel()

    @contextlib.contextmanager
    def gone(self) -> Iterator[None]:
        """Cut all connections, and close new ones unanswered while the block runs: then a proxy answers 502."""
        self._is_gone = True
        for scope in self._scopes:
            scope.cancel()
        yield
        self._is_gone = False

    async def until(self, condition: Callable[[Self], bool]) -> None:
        """Wait until a condition on the counts holds."""
        while not condition(self):
            await self._changed.wait()

    async def _serve(self, proxy: SocketStream) -> None:
        self.open_connections += 1
        try:
            async with proxy:
                if self._is_gone:
                    self.refused += 1
                else:
                    await self._pass_on(proxy)
        finally:
            self.open_connections -= 1
            self._changed.set()
            self._changed = anyio.Event()

    async def _pass_on(self, proxy: SocketStream) -> None:
        async with await anyio.connect_tcp("127.0.0.1", self._server_port) as server:
            async with anyio.create_task_group() as tasks:
                self._scopes.add(tasks.cancel_scope)
                try:
                    tasks.start_soon(self._copy, proxy, server, tasks.cancel_scope)
                    await self._copy(server, proxy, tasks.cancel_scope)
                finally:
                    self._scopes.remove(tasks.cancel_scope)

    async def _copy(self, source: SocketStream, target: SocketStream, both: anyio.CancelScope) -> None:
        """Copy until either side has closed. Then neither needs the other any more."""
        is_first = True
        # Either side may leave at any moment. That is what these tests are about.
        with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                data = await source.receive()
                if is_first and self._is_http_10:
                    data = data.replace(b"HTTP/1.1", b"HTTP/1.0", 1)
                is_first = False
                await target.send(data)
        both.cancel()
