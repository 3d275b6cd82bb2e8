"""One request and the head of its response, over one connection."""

from __future__ import annotations

from enclave.errors import APIConnectionError
from enclave.transport._messages import Timeouts

from ._connection import Connection
from ._parser import ResponseHead, ResponseParser


class Exchange:
    """Sends a request and reads until the head of the response is there. Leaves the connection to its caller."""

    __slots__ = ("_connection", "_pieces", "_timeouts", "body_start", "parser", "sent")

    def __init__(
        self, connection: Connection, pieces: list[memoryview], timeouts: Timeouts, max_header_bytes: int
    ) -> None:
        self._connection = connection
        self._pieces = pieces
        self._timeouts = timeouts
        self.parser = ResponseParser(max_header_bytes=max_header_bytes)
        self.body_start = b""
        """What of the body came along with the head."""
        self.sent = False
        """Whether the whole request is out. A server that refuses it may answer before."""

    async def run(self) -> ResponseHead:
        """The final head.

        Raises:
            APIConnectionError: there is none to be had.
        """
        try:
            for piece in self._pieces:
                await self._connection.send(piece, self._timeouts.write)
        except APIConnectionError as broken:
            unsent = broken
        else:
            self.sent = True
            return await self._read_head()
        # A server that refuses a large request answers and hangs up. Its answer tells more than the broken pipe.
        try:
            return await self._read_head()
        except APIConnectionError:
            pass
        raise unsent

    @property
    def unanswered(self) -> bool:
        """Whether not a single byte came back."""
        return not self.parser.started

    async def _read_head(self) -> ResponseHead:
        while (head := self.parser.take_head()) is None:
            data = await self._connection.receive(self._timeouts.read)
            if data:
                self.body_start = self.parser.feed(data)
            else:
                self.parser.feed_eof()
        return head
