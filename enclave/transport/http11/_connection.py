"""One connected socket: bytes out, bytes in, each with its timeout, and whether it is still good. Knows no HTTP."""

from __future__ import annotations

import select
import ssl
import sys
from typing import Protocol, cast

import anyio
import httpx
from anyio.abc import ByteStream
from anyio.streams.tls import TLSAttribute

from ._errors import FOREIGN, translate

MAX_READ_BYTES = 65_536
"""Most that one read returns. A buffer of more is mapped and cleared by the kernel for each read, which costs more than
a small read itself."""


class RawSocket(Protocol):
    """What asyncio, uvloop and trio sockets have in common."""

    def fileno(self) -> int: ...
    def setsockopt(self, level: int, optname: int, value: int, /) -> None: ...


class Connection:
    """A connected stream and its state. The transport sees to it that it has one user at a time."""

    __slots__ = ("_socket", "_socket_stream", "_stream", "expires_at", "peer")

    def __init__(self, stream: ByteStream, socket: RawSocket, peer: str, *, socket_stream: ByteStream) -> None:
        self._stream = stream
        self._socket_stream = socket_stream  # the same where there is no TLS
        self._socket = socket
        self.peer = peer
        """Host and port, for messages."""
        self.expires_at = 0.0
        """Until when it may be taken from the idle ones, on the event loop's clock."""

    async def send(self, data: memoryview, seconds: float | None) -> None:
        """Send all of `data`. When this raises, or is cancelled, the connection is of no more use.

        Raises:
            httpx.WriteTimeout: the peer took too long to take it.
            httpx.WriteError: the connection broke.
        """
        try:
            # A view, not bytes: tracebacks that render local variables show what is in flight.
            view = cast("bytes", data)
            if seconds is None:
                return await self._stream.send(view)
            with anyio.move_on_after(seconds):
                return await self._stream.send(view)
        except FOREIGN as error:
            raise translate(error, "write", self.peer) from error
        raise httpx.WriteTimeout(f"{self.peer} took no more of the request for {seconds:g} s")

    async def receive(self, seconds: float | None) -> bytes:
        """The next bytes, empty at the end of the stream. Cancelling it loses nothing; it can be called again.

        Raises:
            httpx.ReadTimeout: nothing came for `seconds`.
            httpx.ReadError: the connection broke.
        """
        try:
            # A cancel scope costs more than the rest of a read; none is needed for what is already here.
            if seconds is None or (self._stream is self._socket_stream and self._has_more()):
                return await self._stream.receive(MAX_READ_BYTES)
            return await self._receive_within(seconds)
        except anyio.EndOfStream:
            return b""
        except FOREIGN as error:
            raise translate(error, "read", self.peer) from error

    async def _receive_within(self, seconds: float) -> bytes:
        with anyio.move_on_after(seconds):
            return await self._stream.receive(MAX_READ_BYTES)
        raise httpx.ReadTimeout(f"{self.peer} sent nothing for {seconds:g} s")

    def is_stale(self) -> bool:
        """Whether an idle connection was closed by the server, or holds bytes that nobody asked for."""
        if self._has_more():
            return True
        return self._stream is not self._socket_stream and _holds_data(self._stream.extra(TLSAttribute.ssl_object))  # noqa: S610 - not Django

    def _has_more(self) -> bool:
        """Whether there are bytes, or the end, that nobody has received: in the socket, or read from it already."""
        has_unread: bool = getattr(self._socket_stream, "has_unread", False)  # on trio nothing is read ahead
        return has_unread or self._is_readable()

    def _is_readable(self) -> bool:
        descriptor = self._socket.fileno()
        if descriptor < 0:
            return True
        if sys.platform == "win32":
            return bool(select.select([descriptor], [], [], 0)[0])
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))

    async def aclose(self) -> None:
        """Close the socket, whatever its state. A cancellation comes too late to keep it open.

        On trio it is raised after that, on asyncio not.
        """
        await self._stream.aclose()


def _holds_data(tls: ssl.SSLObject) -> bool:
    try:
        tls.read(1)
    except ssl.SSLWantReadError:
        return False
    except ssl.SSLError:
        return True
    return True
