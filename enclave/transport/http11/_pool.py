"""Who owns which connection. Every change of owner is synchronous, and so is closing. Only dialling is awaited."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

from anyio.lowlevel import checkpoint

from enclave._loop import current_time
from enclave._slots import Slots
from enclave.errors import ConnectTimeoutError, UsageError
from enclave.transport._time_limit import TimeLimit

from ._connection import Connection

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
        dial: Callable[[float | None, TimeLimit], Awaitable[Connection]],
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

    async def connect(self, seconds: float | None, limit: TimeLimit) -> Connection:
        """A new connection, for a stream. There may be any number of them, only not made all at once."""
        self._refuse_if_closed()
        if not self._dialling.take():
            await self._dialling.wait()
        try:
            return await self.dial(seconds, limit)
        finally:
            self._dialling.release()

    async def take_slot(self) -> None:
        """One of the slots that requests share. The step that is in force limits the wait for it."""
        self._refuse_if_closed()
        if not self.slots.take():
            await self.slots.wait()

    async def dial(self, seconds: float | None, limit: TimeLimit) -> Connection:
        """A new connection, entered among the open ones."""
        self._refuse_if_closed()
        connection = await self._dial(seconds, limit)
        self.open.add(connection)
        # Closed while this one was being made, so `aclose` has not seen it.
        if self.closed:
            self.discard(connection)
            self._refuse_if_closed()
        return connection

    def put_idle(self, connection: Connection, promised_seconds: int | None) -> bool:
        """Take a connection back for later use. Gives False if it is not worth keeping."""
        seconds = self._keepalive_seconds
        if promised_seconds is not None:
            seconds = min(seconds, promised_seconds - KEEP_ALIVE_MARGIN_SECONDS)
        if seconds <= 0:
            return False
        connection.expires_at = current_time() + seconds
        self.idle.append(connection)
        return True

    def discard(self, connection: Connection) -> None:
        """Close a connection that nobody shall use any more."""
        self.open.discard(connection)
        connection.close()

    def close_idle(self) -> None:
        """Close the connections that wait for another request."""
        while self.idle:
            self.discard(self.idle.popleft())

    async def aclose(self) -> None:
        """Close every connection, also those in use, and send the queue away."""
        self.closed = True
        # Whoever waits for a slot is let in, finds the pool closed, and says so.
        self.slots.admit_all()
        self._dialling.admit_all()
        self.idle.clear()
        while self.open:
            self.open.pop().close()
        # asyncio closes a socket in its next turn, and a caller may go on with something that blocks the event loop.
        await checkpoint()

    def take_idle(self) -> Connection | None:
        """An idle connection that is still good, if there is one. Those that are past their time are closed."""
        now = current_time()
        while self.idle and self.idle[0].expires_at <= now:
            self.discard(self.idle.popleft())
        while self.idle:
            # The one that was used last has the best chance that the server still keeps it.
            connection = self.idle.pop()
            # The server may have closed it, or have sent bytes that would pass for the next answer.
            if connection.expires_at > now and not connection.is_stale():
                return connection
            self.discard(connection)
        return None

    def no_turn(self, seconds: float) -> ConnectTimeoutError:
        """The error for a stream that waited too long for its turn to connect."""
        return ConnectTimeoutError(f"no connection to {self._peer} was begun within {seconds:g} s")

    def no_slot(self, seconds: float) -> ConnectTimeoutError:
        """The error for a request that waited too long for a slot."""
        total = self.slots.total
        return ConnectTimeoutError(f"none of the {total} connections to {self._peer} became free within {seconds:g} s")

    def _refuse_if_closed(self) -> None:
        if self.closed:
            raise UsageError(f"the transport to {self._peer} is closed")


class Lease:
    """One response's ownership of a connection, and of a slot if it is a request's. `close` ends it, once for all."""

    __slots__ = ("_has_slot", "_is_stream", "_pool", "connection", "reused")

    def __init__(self, pool: Pool, *, is_stream: bool) -> None:
        self._pool = pool
        self._is_stream = is_stream
        self._has_slot = False
        self.connection: Connection | None = None
        self.reused = False
        """Whether earlier responses came over it, so that the server may have closed it meanwhile."""

    async def connect(self, seconds: float | None, limit: TimeLimit) -> Connection:
        """A connection. A stream gets one of its own, a request gets a slot and with it an idle one, or else a new one.

        Called within the time limit, during the step that is the wait for it. To make a new one is another step.

        Raises:
            ConnectError: no connection could be made. UsageError: the pool is closed. And the limit raises
            ConnectTimeoutError: it took too long.
        """
        pool = self._pool
        if self._is_stream:
            self.connection = await pool.connect(seconds, limit)
            return self.connection
        await pool.take_slot()
        self._has_slot = True
        self.connection = pool.take_idle()
        self.reused = self.connection is not None
        if self.connection is None:
            self.connection = await pool.dial(seconds, limit)
        return self.connection

    def recycle(self, promised_seconds: int | None) -> None:
        """Give the connection back for another request. That of a stream stays, and is closed."""
        connection = self.connection
        if self._has_slot and connection is not None and self._pool.put_idle(connection, promised_seconds):
            self.connection = None
            self._free_slot()

    async def redial(self, seconds: float | None, limit: TimeLimit) -> Connection:
        """A new connection in place of one that turned out dead. The slot stays."""
        dead, self.connection = self.connection, None
        if dead is not None:
            self._pool.discard(dead)
        self.connection = await self._pool.dial(seconds, limit)
        self.reused = False
        return self.connection

    def close(self) -> None:
        """Close the connection, unless it was recycled."""
        connection, self.connection = self.connection, None
        self._free_slot()
        if connection is not None:
            self._pool.discard(connection)

    def _free_slot(self) -> None:
        if self._has_slot:
            self._has_slot = False
            self._pool.slots.release()
