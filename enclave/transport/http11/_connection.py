"""One connected socket: bytes out, bytes in, and whether it is still good. Knows no HTTP, and no time."""

from __future__ import annotations

import anyio

from enclave.errors import APITimeoutError
from enclave.transport._exceptions import FOREIGN, raise_mapped

from ._stream import RawSocket, Stream, is_readable
from ._tls import TruncatedError

MAX_READ_BYTES = 65_536
"""Most that one read returns. A buffer of more is mapped and cleared by the kernel for each read, which costs more than
a small read itself."""


class Connection:
    """A connected stream and its state. The pool sees to it that it has one user at a time."""

    __slots__ = ("_socket", "expires_at", "peer", "stream", "was_cut")

    def __init__(self, stream: Stream, socket: RawSocket, peer: str) -> None:
        self.stream = stream
        """For a read that waits for long. What that raises is for `after_failed_read`. Other reads call `receive`."""
        self._socket = socket
        self.peer = peer
        """Host and port, for messages."""
        self.was_cut = False
        """Whether it ended without TLS's closing message, where there is TLS, or while the request was being sent."""
        self.expires_at = 0.0
        """Until when it may be taken from the idle ones, on the event loop's clock."""

    async def send(self, data: memoryview) -> None:
        """Send all of `data`. When this raises, or is cancelled, nothing more can be sent.

        Raises:
            APIConnectionError: the connection broke.
        """
        try:
            # A view, not bytes: tracebacks that render local variables show what is in flight.
            await self.stream.send(data)
        except FOREIGN as error:
            # The system tells of a reset once. What is read after that ends as if the server had closed in good order.
            self.was_cut = True
            raise_mapped(error, f"the connection to {self.peer} broke while the request was sent", connecting=False)

    async def receive(self) -> bytes:
        """The next bytes, empty at the end of the stream. A cancelled call loses nothing, and can be made again.

        Raises:
            APIConnectionError: the connection broke.
        """
        try:
            return await self.stream.receive()
        except FOREIGN as error:
            return self.after_failed_read(error)

    def after_failed_read(self, error: Exception) -> bytes:
        """What `receive` gives, or raises, where the stream's has raised one of `FOREIGN`."""
        if not isinstance(error, anyio.EndOfStream):
            raise_mapped(error, f"the connection to {self.peer} broke while the response was read", connecting=False)
        self.was_cut = self.was_cut or isinstance(error, TruncatedError)
        return b""

    def took_nothing(self, seconds: float) -> APITimeoutError:
        """The error for a peer that does not take what is sent."""
        return APITimeoutError(f"{self.peer} took no more of the request for {seconds:g} s")

    def sent_nothing(self, seconds: float) -> APITimeoutError:
        """The error for a peer that is silent."""
        return APITimeoutError(f"{self.peer} sent nothing for {seconds:g} s")

    def is_stale(self) -> bool:
        """Whether an idle connection was closed by the server, or holds bytes that nobody asked for."""
        return self.stream.has_unread or is_readable(self._socket)

    def close(self) -> None:
        """Close the socket, whatever its state."""
        self.stream.close()
