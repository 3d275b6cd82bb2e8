"""One request and the head of its response, over one connection."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import httpx

from ._connection import Connection
from ._parser import ResponseHead, ResponseParser
from ._request import MAX_INLINE_BODY_BYTES, Outgoing, Timeouts

MAX_EARLY_ANSWER_BYTES = 65_536
EARLY_ANSWER_SECONDS = 1.0
"""How much, and for how long, is read of an answer that comes while the request is still being sent."""

_FIRST_STATUS_THAT_STOPS_AN_UPLOAD = 300


class Exchange:
    """Sends a request and reads until the head of the response is there. Leaves the connection to its caller."""

    __slots__ = ("_connection", "_outgoing", "_timeouts", "_watch_error", "body_start", "parser", "sent")

    def __init__(self, connection: Connection, outgoing: Outgoing, timeouts: Timeouts, max_header_bytes: int) -> None:
        self._connection = connection
        self._outgoing = outgoing
        self._timeouts = timeouts
        self._watch_error: httpx.TransportError | None = None
        self.parser = ResponseParser(method=outgoing.method, max_header_bytes=max_header_bytes)
        self.body_start = b""
        """What of the body came along with the head."""
        self.sent = False
        """Whether the whole request is out; the server may answer before."""

    async def run(self) -> ResponseHead:
        """The final head.

        Raises:
            httpx.TransportError: there is none to be had.
        """
        try:
            await self._connection.send(self._outgoing.first, self._timeouts.write)
            if self._outgoing.rest is not None:
                await self._upload()
            else:
                self.sent = True
        except httpx.WriteError as broken:
            return await self._answer_to_half_a_request(broken)
        return await self._read_head(self._timeouts.read)

    @property
    def unanswered(self) -> bool:
        """Whether not a single byte came back."""
        return not self.parser.started

    async def _read_head(self, seconds: float | None) -> ResponseHead:
        while (head := self.parser.head) is None:
            data = await self._connection.receive(seconds)
            if data:
                self.body_start = self.parser.feed(data)
            else:
                self.parser.feed_eof()
        return head

    async def _answer_to_half_a_request(self, broken: httpx.WriteError) -> ResponseHead:
        """A server that refuses a body answers and closes; the answer tells more than the broken pipe."""
        try:
            return await self._read_head(self._timeouts.read)
        except httpx.TransportError:
            raise broken from broken.__cause__

    async def _upload(self) -> None:
        """Send the body while watching for the answer: an error, or the end, makes the rest of it pointless."""
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as sending:
                tasks.start_soon(self._watch, sending)
                try:
                    await self._send_rest()
                except Exception as error:  # noqa: BLE001 - raised below, outside the group, which would wrap it
                    failure = error
            tasks.cancel_scope.cancel()
        failure = failure or self._watch_error
        if failure is not None:
            raise failure

    async def _watch(self, sending: anyio.CancelScope) -> None:
        try:
            head = await self._read_head(None)
            if head.status < _FIRST_STATUS_THAT_STOPS_AN_UPLOAD:
                return
            await self._read_early_answer()
        except httpx.TransportError as error:
            if self.parser.head is None:  # else reading the body meets it again
                self._watch_error = error
        sending.cancel()

    async def _read_early_answer(self) -> None:
        """Read on, within bounds, before sending stops: TLS can no longer be read once a write was cut short."""
        with anyio.move_on_after(EARLY_ANSWER_SECONDS):
            while not self.parser.complete and len(self.body_start) < MAX_EARLY_ANSWER_BYTES:
                data = await self._connection.receive(None)
                if data:
                    self.body_start += self.parser.feed(data)
                else:
                    self.parser.feed_eof()

    async def _send_rest(self) -> None:
        rest = self._outgoing.rest
        if isinstance(rest, memoryview):
            await self._send_piece(rest)
        elif rest is not None:
            await self._send_stream(rest)
        if self._outgoing.rest_bytes is None:
            await self._connection.send(memoryview(b"0\r\n\r\n"), self._timeouts.write)
        self.sent = True

    async def _send_stream(self, stream: httpx.AsyncByteStream) -> None:
        promised, sent = self._outgoing.rest_bytes, 0
        pieces = aiter(stream)
        try:
            # No local variable holds a piece as bytes: tracebacks show those.
            while (piece := await _next_view(pieces)) is not None:
                sent += len(piece)
                if promised is not None and sent > promised:
                    break
                await self._send_piece(piece)
        finally:
            await _finish_iterator(pieces)
        if promised is not None and sent != promised:
            more = "more" if sent > promised else "less"
            raise httpx.LocalProtocolError(f"the request's body is {more} than its Content-Length, {promised} bytes")

    async def _send_piece(self, piece: memoryview) -> None:
        for start in range(0, len(piece), MAX_INLINE_BODY_BYTES):
            part = piece[start : start + MAX_INLINE_BODY_BYTES]
            if self._outgoing.rest_bytes is None:
                part = memoryview(b"".join((b"%x\r\n" % len(part), part, b"\r\n")))
            await self._connection.send(part, self._timeouts.write)


async def _next_view(pieces: AsyncIterator[bytes]) -> memoryview | None:
    try:
        return memoryview(await anext(pieces))
    except StopAsyncIteration:
        return None


async def _finish_iterator(pieces: AsyncIterator[bytes]) -> None:
    """Close a generator that was left early here, not whenever the garbage collector finds it."""
    aclose = getattr(pieces, "aclose", None)
    if aclose is not None:
        await aclose()
