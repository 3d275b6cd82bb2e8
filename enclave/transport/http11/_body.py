"""The body of a response: what the caller reads, and what gives the connection back or closes it."""

from __future__ import annotations

from collections.abc import Callable

from enclave.errors import EnclaveError, UsageError
from enclave.transport._exceptions import FOREIGN
from enclave.transport._messages import PulledBody
from enclave.transport._time_limit import TimeLimit

from ._connection import Connection
from ._exchange import Exchange
from ._pool import Lease


class ResponseBody(PulledBody):
    """Reads from the socket only when asked, one network read at a time.

    Not an async generator: a cancelled read loses nothing, and reading can go on after it. One task reads at a time.
    """

    __slots__ = ("_keep_alive", "_lease", "_limit", "_parser", "_read_seconds", "_start", "_take")

    read_is_repeatable = True

    def __init__(
        self, lease: Lease, exchange: Exchange, limit: TimeLimit | None, *, read_seconds: float | None
    ) -> None:
        self._lease = lease
        self._parser = exchange.parser
        self._start = exchange.body_start
        self._keep_alive = exchange.sent
        self._limit = limit
        self._read_seconds = read_seconds
        self._take: Callable[[bytes], bool] | None = None  # gets the bytes while a task waits in `deliver`
        if self._parser.complete:
            self._finish()

    @property
    def is_complete(self) -> bool:
        """Whether all of it came, whether or not all of it was read."""
        return self._parser.complete

    async def read(self) -> bytes:
        """All body bytes of the next network read that has any, as one object, or nothing at the end.

        Raises:
            APITimeoutError: nothing came within the request's read timeout.
            APIConnectionError: the connection broke, or what came is not HTTP/1.1 or ended too early.
            ResponseTooLargeError: the trailers exceed their bound.
            UsageError: the body was closed, or another task is reading it.
        """
        if self._start:
            return self._take_start()
        try:
            while not self._parser.complete:
                connection = self._connection()
                read = connection.receive() if self._limit is None else self._receive_within(self._limit, connection)
                # No await from here to the return: a cancellation must not come between the bytes and the caller.
                body = self._feed(await read)
                if body:
                    return body
        except UsageError:
            raise  # the task that reads already goes on
        except EnclaveError:
            self._lease.close()
            raise
        self._lease.close()
        return b""

    async def deliver(self, take: Callable[[bytes], bool]) -> bool:
        """See `Body.deliver`. Raises as `read` does."""
        if self._limit is not None:
            return await super().deliver(take)
        if self._take is not None:
            raise UsageError("another task is reading this response")
        if self._start and take(self._take_start()):
            return True
        self._take = take
        try:
            while not self._parser.complete:
                connection = self._connection()
                try:
                    # A stream waits here for long, and so there is no coroutine between.
                    await connection.stream.deliver(self._unwrap)
                except FOREIGN as error:
                    nothing = connection.after_failed_read(error)
                else:
                    return True
                self._feed(nothing)
        except UsageError:
            raise  # the task that reads already goes on
        except EnclaveError:
            self._lease.close()
            raise
        finally:
            self._take = None
        self._lease.close()
        return False

    def _unwrap(self, data: bytes) -> bool:
        """Pass on what of the body has come. Gives whether there is something else to do than to wait for more."""
        try:
            body = self._feed(data)
        except EnclaveError:
            return True  # the parser has noted it, and tells the next call
        has_enough = bool(body) and self._take is not None and self._take(body)
        return has_enough or self._parser.complete or self._parser.fault is not None

    def _take_start(self) -> bytes:
        start, self._start = self._start, b""
        return start

    async def aclose(self) -> None:
        """Close the connection, unless the body was read to its end and the connection went back already."""
        self._lease.close()

    def _connection(self) -> Connection:
        self._parser.check()
        connection = self._lease.connection
        if connection is None:
            raise UsageError("the response was closed before its end")
        return connection

    async def _receive_within(self, limit: TimeLimit, connection: Connection) -> bytes:
        with limit.rest() as rest:
            rest.step(self._read_seconds, connection.sent_nothing)
            return await connection.receive()

    def _feed(self, data: bytes) -> bytes:
        if not data:
            connection = self._lease.connection
            self._parser.feed_eof(was_cut=connection is not None and connection.was_cut)
            return b""
        body = self._parser.feed(data)
        if self._parser.complete:
            self._finish()
        return body

    def _finish(self) -> None:
        if self._keep_alive and self._parser.reusable:
            self._lease.recycle(self._parser.keep_alive_seconds)
