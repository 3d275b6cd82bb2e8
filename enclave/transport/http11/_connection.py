"""One connected socket: bytes out, bytes in, each with its timeout, and whether it is still good. Knows no HTTP."""

from __future__ import annotations

import select
import sys
from typing import Protocol, cast

import anyio
from anyio.abc import ByteStream

from enclave.errors import APITimeoutError
from enclave.transport._exceptions import FOREIGN, raise_mapped

from ._tls import TruncatedError

MAX_READ_BYTES = 65_536
"""Most that one read returns. A buffer of more is mapped and cleared by the kernel for each read, which costs more than
a small read itself."""


class RawSocket(Protocol):
    """What asyncio, uvloop and trio sockets have in common."""

    def fileno(self) -> int: ...
    def setsockopt(self, level: int, optname: int, value: int, /) -> None: ...


class Connection:
    """A connected stream and its state. The pool sees to it that it has one user at a time."""

    __slots__ = ("_socket", "_socket_stream", "_stream", "expires_at", "peer", "was_cut")

    def __init__(self, stream: ByteStream, socket: RawSocket, peer: str, *, socket_stream: ByteStream) -> None:
        self._stream = stream
        self._socket_stream = socket_stream  # the same where there is no TLS
        self._socket = socket
        self.peer = peer
        """Host and port, for messages."""
        self.was_cut = False
        """Whether it ended without TLS's closing message, where there is TLS."""
        self.expires_at = 0.0
        """Until when it may be taken from the idle ones, on the event loop's clock."""

    async def send(self, data: memoryview, seconds: float | None) -> None:
        """Send all of `data`. When this raises, or is cancelled, nothing more can be sent.

        Raises:
            APITimeoutError: the peer took too long to take it.
            APIConnectionError: the connection broke.
        """
        try:
            # A view, not bytes: tracebacks that render local variables show what is in flight.
            view = cast("bytes", data)
            if seconds is None:
                return await self._stream.send(view)
            with anyio.move_on_after(seconds):
                return await self._stream.send(view)
        except FOREIGN as error:
            raise_mapped(error, f"the connection to {self.peer} broke while the request was sent", connecting=False)
        raise APITimeoutError(f"{self.peer} took no more of the request for {seconds:g} s")

    async def receive(self, seconds: float | None) -> bytes:
        """The next bytes, empty at the end of the stream. A cancelled call loses nothing, and can be made again.

        Raises:
            APITimeoutError: nothing came for `seconds`.
            APIConnectionError: the connection broke.
        """
        try:
            # A cancel scope costs more than the rest of a read, and what is here already needs none.
            if seconds is None or (self._stream is self._socket_stream and self._has_more()):
                return await self._stream.receive(MAX_READ_BYTES)
            with anyio.move_on_after(seconds):
                return await self._stream.receive(MAX_READ_BYTES)
        except anyio.EndOfStream as end:
            self.was_cut = isinstance(end, TruncatedError)
            return b""
        except FOREIGN as error:
            raise_mapped(error, f"the connection to {self.peer} broke while the response was read", connecting=False)
        raise APITimeoutError(f"{self.peer} sent nothing for {seconds:g} s")

    def is_stale(self) -> bool:
        """Whether an idle connection was closed by the server, or holds bytes that nobody asked for."""
        # Under TLS they may have been read from the socket already, together with the response.
        return self._has_more() or bool(getattr(self._stream, "has_unread", False))

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
        poll = select.poll()  # unlike select, for any number of open files
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))

    async def aclose(self) -> None:
        """Close the socket, whatever its state. A cancellation comes too late to keep it open.

        On trio it is raised after that, on asyncio not.
        """
        await self._stream.aclose()
