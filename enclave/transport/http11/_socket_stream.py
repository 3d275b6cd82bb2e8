"""A TCP stream on a plain socket, for every event loop that can wait for one. It carries connections on trio.

On asyncio `_asyncio_stream.py` is faster.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from enclave._loop import wake_those_who_wait_for

_CALLS_PER_CHECKPOINT = 8
"""A call that need not wait gives way to other tasks once in so many."""


class SocketStream(ByteStream):
    """A connected, non-blocking socket: one task receives, one sends. Nothing is read ahead."""

    def __init__(self, raw: socket.socket, scratch: memoryview) -> None:
        """Take over a socket.

        Args:
            raw: the socket.
            scratch: what the socket is read into, shared by all streams of one event loop: nothing stays in it.
        """
        self._socket = raw
        self._scratch = scratch
        self._calls = 0
        self._is_closed = self._is_receiving = self._is_sending = False

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """The next bytes. A cancelled call has taken none.

        Raises:
            anyio.EndOfStream: the peer sends no more.
            anyio.BrokenResourceError: the connection broke. anyio.ClosedResourceError: it was closed on this side.
            anyio.BusyResourceError: another task is receiving.
        """
        if self._is_receiving:
            raise anyio.BusyResourceError("reading from")
        self._is_receiving = True
        buffer = self._scratch[:max_bytes]
        try:
            await self._give_way()
            while True:
                try:
                    # Tried before it is waited for: where the server is the faster one, that is the only system call.
                    size = self._socket.recv_into(buffer)
                    break
                except BlockingIOError:
                    await anyio.wait_readable(self._socket)
        except OSError as error:
            self._raise(error)
        finally:
            self._is_receiving = False
        if not size:
            raise anyio.EndOfStream
        # No await since the read, for another stream may read into the same buffer at the next one.
        return bytes(buffer[:size])

    async def send(self, item: bytes) -> None:
        """Send all of `item`. A cancelled call may have sent a part.

        Raises:
            anyio.BrokenResourceError: the connection broke. anyio.ClosedResourceError: it was closed on this side.
            anyio.BusyResourceError: another task is sending.
        """
        unsent = memoryview(item)
        while unsent:
            unsent = unsent[await self.send_some(unsent) :]

    async def send_some(self, item: bytes | memoryview) -> int:
        """Send the first bytes of `item`, once there is room, and give their number. A cancelled call has sent none.

        Raises:
            As `send` does.
        """
        if self._is_sending:
            raise anyio.BusyResourceError("writing to")
        self._is_sending = True
        try:
            await self._give_way()
            while True:
                try:
                    return self._socket.send(item)
                except BlockingIOError:
                    await anyio.wait_writable(self._socket)
        except OSError as error:
            self._raise(error)
        finally:
            self._is_sending = False

    def send_nowait(self, item: bytes) -> None:
        """Send as much of `item` as the kernel takes at once, as the last bytes before `aclose`.

        Raises:
            OSError: the connection broke, or the kernel takes nothing.
        """
        self._socket.send(item)

    async def send_eof(self) -> None:
        """Send no more. Receiving goes on."""
        self._socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        """Close the socket. A task that waits for it gets an `anyio.ClosedResourceError`."""
        if not self._is_closed:
            self._is_closed = True
            # Before the close, after which the system may give the descriptor to another socket.
            wake_those_who_wait_for(self._socket)
            self._socket.close()
        await checkpoint()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The socket, under `anyio.abc.SocketAttribute.raw_socket`."""
        return {SocketAttribute.raw_socket: lambda: self._socket}

    async def _give_way(self) -> None:
        """Before anything is taken or sent, so that a cancellation here loses nothing."""
        self._calls += 1
        await (checkpoint_if_cancelled() if self._calls % _CALLS_PER_CHECKPOINT else checkpoint())

    def _raise(self, error: OSError) -> NoReturn:
        if self._is_closed:
            raise anyio.ClosedResourceError from None
        raise anyio.BrokenResourceError from error
