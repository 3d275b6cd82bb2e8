"""Who owns which connection. Every change of owner is synchronous. Only dialling and closing are awaited."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import anyio
from anyio.lowlevel import checkpoint

from enclave.errors import ConnectTimeoutError, UsageError
from enclave.transport._messages import Timeouts

from ._connection import Connection
from ._slots import Slots

KEEP_ALIVE_MARGIN_SECONDS = 1.0
"""How much earlier than the server says an idle connection is given up, so that the two do not race."""

MAX_STREAMS_DIALLED = 100
"""How many connections for streams are being made at once. The queue of a server that listens is often as short, and of
thousands of TLS handshakes that begin together, the last ones time out while the first ones are served."""


class Pool:
    """The connections of one origin: last in, first out among the idle, and never more than the slots for requests.

    A new one is made only by a holder of a slot who finds none idle, so the idle ones need no bound of their own.
    """

    def __init__(
        self,
        dial: Callable[[float | None], Awaitable[Connection]],
        *,
        peer: str,
        max_connections: int,
        keepalive_seconds: float,
    ) -> None:
        self._dial = dial
        self._peer = peer
        self._keepalive_seconds = keepalive_seconds
        self.slots = Slots(max_connections)
        self._dialling = Slots(MAX_STREAMS_DIALLED)
        self.idle: deque[Connection] = deque()
        self.open: set[Connection] = set()
        """All connections: idle ones, and those that a response owns."""
        self.closed = False

    async def lease_stream(self, timeouts: Timeouts) -> Lease:
        """A connection of its own. There may be any number of them, only not made all at once.

        Raises:
            As `lease` does.
        """
        self._refuse_if_closed()
        if not await self._dialling.acquire(timeouts.acquire):
            raise ConnectTimeoutError(f"no connection to {self._peer} was begun within {timeouts.acquire:g} s")
        try:
            connection = await self.dial(timeouts.connect)
        finally:
            self._dialling.release()
        return Lease(self, connection, has_slot=False, reused=False)

    async def lease(self, timeouts: Timeouts) -> Lease:
        """A slot, and with it an idle connection or else a new one.

        Raises:
            ConnectTimeoutError: no slot became free in time, or no connection was made in time.
            ConnectError: no connection could be made. UsageError: the pool is closed.
        """
        self._refuse_if_closed()
        if not await self.slots.acquire(timeouts.acquire):
            raise ConnectTimeoutError(
                f"none of the {self.slots.total} connections to {self._peer} became free within {timeouts.acquire:g} s"
            )
        try:
            connection = await self._take_idle()
            reused = connection is not None
            if connection is None:
                connection = await self.dial(timeouts.connect)
        except BaseException:
            self.slots.release()
            raise
        return Lease(self, connection, has_slot=True, reused=reused)

    async def dial(self, seconds: float | None) -> Connection:
        """A new connection, entered among the open ones."""
        self._refuse_if_closed()
        connection = await self._dial(seconds)
        self.open.add(connection)
        # Closed while this one was being made, so `aclose` has not seen it.
        if self.closed:
            await self.discard(connection)
            self._refuse_if_closed()
        return connection

    def put_idle(self, connection: Connection, promised_seconds: int | None) -> bool:
        """Take a connection back for later use. Gives False if it is not worth keeping."""
        seconds = self._keepalive_seconds
        if promised_seconds is not None:
            seconds = min(seconds, promised_seconds - KEEP_ALIVE_MARGIN_SECONDS)
        if seconds <= 0:
            return False
        connection.expires_at = anyio.current_time() + seconds
        self.idle.append(connection)
        return True

    async def discard(self, connection: Connection) -> None:
        """Close a connection that nobody shall use any more."""
        self.open.discard(connection)
        await connection.aclose()

    async def aclose(self) -> None:
        """Close every connection, also those in use, and send the queue away."""
        self.closed = True
        # Whoever waits for a slot is let in, finds the pool closed, and says so.
        self.slots.admit_all()
        self._dialling.admit_all()
        self.idle.clear()
        async with AsyncExitStack() as stack:
            while self.open:
                stack.push_async_callback(self.open.pop().aclose)
        # asyncio closes a socket in its next turn, and a caller may go on with something that blocks the event loop.
        await checkpoint()

    async def _take_idle(self) -> Connection | None:
        now = anyio.current_time()
        found: Connection | None = None
        useless: list[Connection] = []
        while self.idle and found is None:
            # The one that was used last has the best chance that the server still keeps it.
            connection = self.idle.pop()
            # The server may have closed it, or have sent bytes that would pass for the next answer.
            if connection.expires_at <= now or connection.is_stale():
                useless.append(connection)
            else:
                found = connection
        while self.idle and self.idle[0].expires_at <= now:
            useless.append(self.idle.popleft())
        if useless:
            await self._discard_all(useless, found)
        return found

    async def _discard_all(self, useless: list[Connection], found: Connection | None) -> None:
        try:
            async with AsyncExitStack() as stack:
                for connection in useless:
                    stack.push_async_callback(self.discard, connection)
        except BaseException:
            if found is not None:
                self.idle.append(found)
            raise

    def _refuse_if_closed(self) -> None:
        if self.closed:
            raise UsageError(f"the transport to {self._peer} is closed")


class Lease:
    """One response's ownership of a connection, and of a slot if it is a request's. Ends once, in either way."""

    __slots__ = ("_has_slot", "_pool", "connection", "reused")

    def __init__(self, pool: Pool, connection: Connection, *, has_slot: bool, reused: bool) -> None:
        self._pool = pool
        self._has_slot = has_slot
        self.connection: Connection | None = connection
        self.reused = reused
        """Whether earlier responses came over it, so that the server may have closed it meanwhile."""

    def recycle(self, promised_seconds: int | None) -> None:
        """Give the connection back for another request. That of a stream stays, and is closed."""
        connection = self.connection
        if self._has_slot and connection is not None and self._pool.put_idle(connection, promised_seconds):
            self.connection = None
            self._free_slot()

    async def redial(self, seconds: float | None) -> Connection:
        """A new connection in place of one that turned out dead. The slot stays."""
        dead, self.connection = self.connection, None
        if dead is not None:
            await self._pool.discard(dead)
        self.connection = await self._pool.dial(seconds)
        self.reused = False
        return self.connection

    async def aclose(self) -> None:
        """Close the connection, unless it was recycled."""
        # First what is synchronous, then the await: a cancellation of that must not keep the slot.
        connection, self.connection = self.connection, None
        self._free_slot()
        if connection is not None:
            await self._pool.discard(connection)

    def _free_slot(self) -> None:
        if self._has_slot:
            self._has_slot = False
            self._pool.slots.release()
