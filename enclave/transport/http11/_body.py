"""The body of a response: what the caller reads, and what gives the connection back or closes it."""

from __future__ import annotations

from enclave.errors import EnclaveError, UsageError
from enclave.transport._exceptions import FOREIGN
from enclave.transport._time_limit import TimeLimit

from ._connection import Connection
from ._exchange import Exchange
from ._pool import Lease


class ResponseBody:
    """Reads from the socket only when asked, one network read at a time.

    Not an async generator: a cancelled read loses nothing, and reading can go on after it. One task reads at a time.
    """

    __slots__ = ("_keep_alive", "_lease", "_limit", "_parser", "_read_seconds", "_start")

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
            start, self._start = self._start, b""
            return start
        try:
            while not self._parser.complete:
                connection = self._connection()
                if self._limit is None:
                    try:
                        # A stream waits here for long, and so there is no coroutine between.
                        data = await connection.stream.receive()
                    except FOREIGN as error:
                        data = connection.after_failed_read(error)
                else:
                    data = await self._receive_within(self._limit, connection)
                # No await from here to the return: a cancellation must not come between the bytes and the caller.
                body = self._feed(data)
                if body:
                    return body
        except UsageError:
            raise  # the task that reads already goes on
        except EnclaveError:
            self._lease.close()
            raise
        self._lease.close()
        return b""

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
