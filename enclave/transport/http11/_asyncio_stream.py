"""A TCP stream on asyncio and uvloop that reads without the two costs that asyncio's usual protocols have.

Those take each read in a buffer of 256 KiB made for it, which the kernel has to map and clear: that alone costs as much
as all the rest of a small read. And anyio's stream stops watching the socket after each read and starts again before
the next: two system calls. Here all connections of a client read into one buffer, and a socket is watched until more
comes than its reader takes. What a stream reads is decoded where the loop has read it: to wake a task for that as well
costs a sixth of a live stream. Measured in benchmarks/README.md.

The one module here that names a loop. `_dial.py` imports it where asyncio is running, and on trio nobody does.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from ._stream import RawSocket, hold_back

_CALLS_PER_CHECKPOINT = 8
"""A task whose future is done is not cancelled by anyio, and while bytes pour in it always is: so it has to ask."""

_MAX_UNREAD_PIECES = 16
"""How much of what the kernel still holds is taken when a write has failed, in reads."""


class AsyncioStream(asyncio.BufferedProtocol):
    """A `PlainStream`. What was read and not yet received is at most two reads.

    Protocol and stream in one object, for there are as many of them as there are streams.
    """

    __slots__ = (
        "_at_end",
        "_closed",
        "_is_receiving",
        "_is_sending",
        "_loop",
        "_lost",
        "_paused",
        "_reader",
        "_reads",
        "_scratch",
        "_sends",
        "_take",
        "_transport",
        "_unread",
        "_writer",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, scratch: memoryview) -> None:
        self._loop = loop
        self._scratch = scratch
        self._transport: asyncio.Transport
        self._unread: tuple[bytes, ...] = ()  # empty as long as a stream waits, and so no object of its own
        self._reader: asyncio.Future[None] | None = None  # exists while a task waits for bytes
        self._take: Callable[[bytes], bool] | None = None  # gets the bytes while a task waits in `deliver`
        self._writer: asyncio.Future[None] | None = None  # exists while the socket takes no more
        self._is_receiving = self._is_sending = False
        self._reads = self._sends = 0
        self._paused = False
        self._at_end = False
        self._lost: Exception | None = None
        self._closed = False

    @classmethod
    async def wrap(cls, raw: socket.socket, scratch: memoryview) -> AsyncioStream:
        """A stream on a connected socket, which it owns from here on.

        Args:
            raw: the socket, non-blocking.
            scratch: what the socket is read into, shared by all streams of one event loop: nothing stays in it.
        """
        loop = asyncio.get_running_loop()
        _, stream = await loop.create_connection(lambda: cls(loop, scratch), sock=raw)
        return stream

    @property
    def socket(self) -> RawSocket:
        """The socket."""
        raw: RawSocket = self._transport.get_extra_info("socket")
        return raw

    @property
    def has_unread(self) -> bool:
        """See `Stream.has_unread`."""
        return bool(self._unread) or self._at_end

    async def receive(self) -> bytes:
        """See `Stream.receive`."""
        self._begin_receiving()
        try:
            if not self._reads % _CALLS_PER_CHECKPOINT:
                await checkpoint_if_cancelled()
            if self._unread or self._at_end:
                await checkpoint()
            else:
                # A cancelled wait has taken nothing: what comes meanwhile stays in `_unread`.
                await self._more()
        finally:
            self._reader = None
            self._is_receiving = False
        if self._unread:
            return self._next_unread()
        raise self._reason() or anyio.EndOfStream

    async def deliver(self, take: Callable[[bytes], bool]) -> None:
        """See `Stream.deliver`."""
        self._begin_receiving()
        try:
            if not self._reads % _CALLS_PER_CHECKPOINT:
                await checkpoint_if_cancelled()
            while True:
                while self._unread:
                    await checkpoint()
                    if take(self._next_unread()):
                        return
                if self._at_end:
                    break
                self._take = take
                await self._more()
                if self._take is None:
                    return
        finally:
            self._reader = self._take = None
            self._is_receiving = False
        raise self._reason() or anyio.EndOfStream

    def _begin_receiving(self) -> None:
        if self._is_receiving:
            raise anyio.BusyResourceError("reading from")
        self._is_receiving = True
        self._reads += 1

    def _more(self) -> asyncio.Future[None]:
        """What is done when bytes have come, or the end."""
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        self._reader = self._loop.create_future()
        return self._reader

    def _next_unread(self) -> bytes:
        data = self._unread[0]
        self._unread = self._unread[1:]
        return data

    async def send(self, item: bytes | memoryview) -> None:
        """See `Stream.send`."""
        if self._is_sending:
            raise anyio.BusyResourceError("writing to")
        self._is_sending = True
        try:
            self._sends += 1
            # A kernel that takes everything at once must not keep other tasks from running.
            await (checkpoint_if_cancelled() if self._sends % _CALLS_PER_CHECKPOINT else checkpoint())
            self._raise_if_broken()
            self._transport.write(item)
            if self._writer is not None:
                if self._writer.cancelled():  # by the call before
                    self._writer = self._loop.create_future()
                await self._writer
                self._raise_if_broken()
        finally:
            self._is_sending = False

    async def send_some(self, item: bytes | memoryview) -> int:
        """See `PlainStream.send_some`. It sends all of it."""
        await self.send(b"")
        self._transport.write(item)
        return len(item)

    def send_last(self, item: bytes) -> None:
        """See `PlainStream.send_last`."""
        if not self._transport.is_closing() and not self._transport.get_write_buffer_size():
            raw = self.socket
            hold_back(raw)
            # Past the transport, because uvloop drops what it was given last when it is aborted.
            os.write(raw.fileno(), item)

    def close(self) -> None:
        """See `Stream.close`. asyncio closes the socket itself in its next turn."""
        self._closed = self._at_end = True
        self._unread = ()
        self._transport.abort()
        self._wake()

    def _reason(self) -> Exception | None:
        """Why nothing more can be received or sent, other than that the peer has ended."""
        if self._closed:
            return anyio.ClosedResourceError()
        if self._lost is None:
            return None
        broken = anyio.BrokenResourceError()
        broken.__cause__ = self._lost
        return broken

    def _raise_if_broken(self) -> None:
        reason = self._reason()
        if reason is not None:
            raise reason
        if self._transport.is_closing():
            raise anyio.BrokenResourceError

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        # No buffer of asyncio's own: `send` is to wait until the kernel has taken everything.
        self._transport.set_write_buffer_limits(0)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio gives -1
        return self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        # Copied at once, because the next socket is read into the same buffer.
        data = bytes(self._scratch[:nbytes])
        if self._take is not None:
            self._hand_over(data, self._take)
            return
        self._unread += (data,)
        # Nobody waits, so the reader is slower than the server. The kernel's buffer slows the server down.
        if not self._wake() and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _hand_over(self, data: bytes, take: Callable[[bytes], bool]) -> None:
        try:
            has_enough = take(data)
        except BaseException as error:
            # Ctrl-C, if nobody keeps it out of the loop, or a fault of ours. To go on would be to lose what has come.
            self._take = None
            if self._reader is None or self._reader.done():
                raise  # asyncio gives up the connection
            self._reader.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            # A read that has filled the buffer is followed by another one. uvloop makes 32 of them in one go, and no
            # other task would have a turn. Without somebody who takes it, the next one pauses reading.
            if has_enough or len(data) == len(self._scratch):
                self._take = None
                self._wake()

    def eof_received(self) -> bool:
        self._at_end = True
        self._wake()
        return True  # keeps the sending half open

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._take_what_the_kernel_holds()
        self._at_end = True
        self._lost = exc
        self._wake()
        # A task that waits for room would wait for ever.
        self.resume_writing()

    def _take_what_the_kernel_holds(self) -> None:
        """A failed write ends asyncio's reading at once. But what the server sent before is the reason it hung up."""
        descriptor = self.socket.fileno()
        with suppress(OSError):  # nothing is left, or this is Windows, where sockets are no files
            while len(self._unread) < _MAX_UNREAD_PIECES and (data := os.read(descriptor, len(self._scratch))):
                self._unread += (data,)

    def pause_writing(self) -> None:
        self._writer = self._loop.create_future()

    def resume_writing(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None and not writer.done():
            writer.set_result(None)

    def _wake(self) -> bool:
        """Let the task that waits for bytes go on. Gives False if none waits."""
        if self._reader is None or self._reader.done():
            return False
        self._reader.set_result(None)
        return True
