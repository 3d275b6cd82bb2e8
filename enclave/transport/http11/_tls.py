"""TLS over a byte stream, by `ssl.SSLObject` and two buffers in memory.

Not anyio's `TLSStream`: that gives out one record a call, and it can no longer be read once a write has failed, which
is when a server that refuses a large request has its answer on the way.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import TypeVar

import anyio
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

T = TypeVar("T")

_MAX_RECORD_BYTES = 16_384


class TLSStream(ByteStream):
    """The client's end of a TLS connection. One task uses it at a time."""

    def __init__(
        self, stream: ByteStream, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
    ) -> None:
        self._stream = stream
        self._tls = tls
        self._incoming = incoming
        self._outgoing = outgoing
        self._records: list[bytes] = []  # decrypted, and not yet taken
        self._end: Exception | None = None  # what comes after the records: the end, or a fault

    @classmethod
    async def handshake(cls, stream: ByteStream, context: ssl.SSLContext, server_name: str) -> TLSStream:
        """Begin TLS on a connected stream.

        Raises:
            ssl.SSLError: the server is not trusted, or does not speak TLS. And what the stream below raises.
        """
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        # The context may be shared with an HTTP/2 client, which sets its own protocols. They are
        # read when the object of a handshake is made, and nothing else runs between these two lines.
        context.set_alpn_protocols(["http/1.1"])
        tls = context.wrap_bio(incoming, outgoing, server_hostname=server_name)
        self = cls(stream, tls, incoming, outgoing)
        try:
            await self._call(tls.do_handshake)
        finally:
            await self._flush()  # the end of the handshake, or the alert that tells the server why there is none
        return self

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """The bytes of all records that have come, as one object. A cancelled call has taken none.

        Raises:
            anyio.EndOfStream: the server sends no more. An end without TLS's goodbye counts too: many servers send
                none, and HTTP itself tells whether a response is whole.
            ssl.SSLError: what came is not TLS. And what the stream below raises.
        """
        if self.has_unread:
            await checkpoint()
        while not self.has_unread:
            await self._flush()  # the answer to a change of keys, where there was one
            await self._fill()
        if not self._records and self._end is not None:
            raise self._end
        data = b"".join(self._records)
        self._records = [data[max_bytes:]] if len(data) > max_bytes else []
        return data[:max_bytes]

    async def send(self, item: bytes) -> None:
        """Send all of `item`. After a failure nothing more can be sent, but what the server sent can be received.

        Raises:
            What the stream below raises.
        """
        await self._call(lambda: self._tls.write(item))
        await self._flush()

    async def send_eof(self) -> None:
        """Not needed: a request says how long it is."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Close without TLS's goodbye: HTTP does not need it, and it would have to be waited for."""
        await self._stream.aclose()

    @property
    def has_unread(self) -> bool:
        """Whether bytes, or the end, have come that nobody has received."""
        if not self._records and self._end is None:
            self._decrypt()
        return bool(self._records) or self._end is not None

    def _decrypt(self) -> None:
        try:
            while data := self._tls.read(_MAX_RECORD_BYTES):
                self._records.append(data)
            self._end = anyio.EndOfStream()
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self._end = anyio.EndOfStream()
        except ssl.SSLError as error:
            self._end = error.with_traceback(None)

    async def _call(self, function: Callable[[], T]) -> T:
        while True:
            try:
                return function()
            except ssl.SSLWantReadError:
                await self._flush()
            await self._fill()

    async def _fill(self) -> None:
        try:
            self._incoming.write(await self._stream.receive())
        except anyio.EndOfStream:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._stream.send(self._outgoing.read())
