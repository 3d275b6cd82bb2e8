"""One request and the head of its response, over one connection."""

from __future__ import annotations

from enclave.errors import APIConnectionError, APITimeoutError, ConnectTimeoutError
from enclave.transport._messages import Request
from enclave.transport._time_limit import TimeLimit

from ._callbacks import Callbacks, ResponseHead
from ._connection import Connection
from ._parser import ResponseParser


def _no_response(seconds: float) -> APITimeoutError:
    return APITimeoutError(f"no response came within {seconds:g} s")


class Exchange:
    """Sends a request and reads until the head of the response is there. Leaves the connection to its caller.

    Args:
        request: what is sent.
        pieces: its bytes.
        limit: the block that `run` is called within. Writes and reads are steps of it, and for a stream all reads one.
        callbacks: what parsers share.
    """

    __slots__ = (
        "_callbacks",
        "_connection",
        "_is_stream",
        "_pieces",
        "_timeouts",
        "body_start",
        "limit",
        "parser",
        "sent",
    )

    def __init__(self, request: Request, pieces: list[memoryview], limit: TimeLimit, callbacks: Callbacks) -> None:
        self._pieces = pieces
        self._timeouts = request.timeouts
        self._is_stream = request.is_stream
        self.limit = limit
        self._callbacks = callbacks
        self._connection: Connection | None = None
        self.parser: ResponseParser
        self.body_start = b""
        """What of the body came along with the head."""
        self.sent = False
        """Whether the whole request is out. A server that refuses it may answer before."""

    async def run(self, connection: Connection) -> ResponseHead:
        """The final head. It may be called again, with another connection.

        Raises:
            APIConnectionError: there is none to be had.
        """
        self._connection = connection
        self.parser = ResponseParser(self._callbacks)
        self.sent = False
        try:
            for piece in self._pieces:
                self.limit.step(self._timeouts.write, connection.took_nothing)
                await connection.send(piece)
        except APIConnectionError as broken:
            unsent = broken
        else:
            self.sent = True
            return await self._read_head(connection)
        # A server that refuses a large request answers and hangs up. Its answer tells more than the broken pipe.
        try:
            return await self._read_head(connection)
        except APIConnectionError:
            pass
        raise unsent

    async def run_on(self, late: APITimeoutError) -> ResponseHead:
        """The final head, after the time limit has ended `run`. Called outside of the limit's block.

        Raises:
            APITimeoutError: `late`, unless the server took no more of the request because it had answered.
        """
        # The wait for a connection may be over just as one comes. Then not a byte went out, and nothing will come back.
        if self._connection is not None and not self.sent and not isinstance(late, ConnectTimeoutError):
            try:
                with self.limit.rest() as self.limit:
                    return await self._read_head(self._connection)
            except APIConnectionError:
                pass
        raise late

    @property
    def unanswered(self) -> bool:
        """Whether not a single byte came back."""
        return not self.parser.started

    async def _read_head(self, connection: Connection) -> ResponseHead:
        if self._is_stream:
            # A server may send the head byte by byte for as long as it likes, and nobody limits the whole of a stream.
            self.limit.step(self._timeouts.read, _no_response)
        while (head := self.parser.take_head()) is None:
            if not self._is_stream:
                self.limit.step(self._timeouts.read, connection.sent_nothing)
            data = await connection.receive()
            if data:
                self.body_start = self.parser.feed(data)
            else:
                self.parser.feed_eof()
        return head
