"""A TCP stream on a plain socket, for every event loop that can wait for one. It carries connections on trio.

On asyncio `_asyncio_stream.py` is faster.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import NoReturn, cast

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from enclave._loop import wake_those_who_wait_for

from ._reactor import Reactor
from ._stream import hold_back

_CALLS_PER_CHECKPOINT = 8
"""A call that need not wait gives way to other tasks once in so many."""

_READS_AT_ONCE = 4
"""How often a stream reads in a row as long as each read fills the buffer. Then others have their turn."""


class SocketStream:
    """A `PlainStream` on a connected, non-blocking socket."""

    has_unread = False
    """Nothing is read ahead."""

    __slots__ = (
        "_calls",
        "_failure",
        "_is_closed",
        "_is_receiving",
        "_is_sending",
        "_reactor",
        "_scratch",
        "_take",
        "socket",
    )

    def __init__(self, raw: socket.socket, scratch: memoryview, reactor: Reactor | None) -> None:
        """Take over a socket.

        Args:
            raw: the socket.
            scratch: what the socket is read into, shared by all streams of one event loop: nothing stays in it.
            reactor: that of the event loop. None where there is no such thing, and each stream waits for its own.
        """
        self.socket = raw
        self._scratch = scratch
        self._reactor = reactor
        self._take: Callable[[bytes], bool] | None = None  # gets the bytes while a task waits in `deliver`
        self._failure: BaseException | None = None  # of a read that the reactor had us make, until it is raised
        self._calls = 0
        self._is_closed = self._is_receiving = self._is_sending = False

    async def receive(self) -> bytes:
        """See `Stream.receive`."""
        self._begin_receiving()
        try:
            await self._give_way()
            # Tried before it is waited for: where the server is the faster one, that is the only system call.
            while (size := self._receive_now()) is None:
                await self._readable()
        finally:
            self._is_receiving = False
        if not size:
            raise anyio.EndOfStream
        # No await since the read, for another stream may read into the same buffer at the next one.
        return bytes(self._scratch[:size])

    async def deliver(self, take: Callable[[bytes], bool]) -> None:
        """See `Stream.deliver`."""
        self._begin_receiving()
        self._take = take
        try:
            while self._take is not None:
                await self._give_way()
                size = self._receive_now()
                if size is None:
                    await self._readable()
                elif not size:
                    raise anyio.EndOfStream
                else:
                    self._hand_over(size, take)
        finally:
            self._take = None
            self._is_receiving = False

    def read_on(self) -> bool:
        """See `Waiter.read_on`."""
        take = cast("Callable[[bytes], bool]", self._take)  # a stream waits here in `deliver` alone
        try:
            for _ in range(_READS_AT_ONCE):
                size = self._receive_now()
                if size == 0:
                    return False
                if size is not None:
                    self._hand_over(size, take)
                if size != len(self._scratch) or self._take is None:
                    break
        except BaseException as error:
            self._failure = error  # for the task that waits, and this may be another one
            if not isinstance(error, Exception):
                raise
            return False
        return self._take is not None

    def _begin_receiving(self) -> None:
        if self._is_receiving:
            raise anyio.BusyResourceError("reading from")
        self._is_receiving = True

    async def send(self, item: bytes | memoryview) -> None:
        """See `Stream.send`."""
        unsent = memoryview(item)
        while unsent:
            unsent = unsent[await self.send_some(unsent) :]

    async def send_some(self, item: bytes | memoryview) -> int:
        """See `PlainStream.send_some`."""
        if self._is_sending:
            raise anyio.BusyResourceError("writing to")
        self._is_sending = True
        try:
            await self._give_way()
            while (size := self._send_now(item)) is None:
                await anyio.wait_writable(self.socket)
        except OSError as error:
            self._raise(error)
        finally:
            self._is_sending = False
        return size

    def send_last(self, item: bytes) -> None:
        """See `PlainStream.send_last`."""
        hold_back(self.socket)
        self.socket.send(item)

    def close(self) -> None:
        """See `Stream.close`."""
        if not self._is_closed:
            self._is_closed = True
            self._failure = None
            if self._reactor is not None:
                self._reactor.leave(self)
            if self._is_receiving or self._is_sending:
                # Before the close, after which the system may give the descriptor to another socket.
                wake_those_who_wait_for(self.socket)
            self.socket.close()

    # The waits are outside of the handlers of these exceptions, which a stream that waits for long would keep.

    def _receive_now(self) -> int | None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            try:
                raise failure
            finally:
                del failure  # its traceback refers to this frame
        try:
            return self.socket.recv_into(self._scratch)
        except BlockingIOError:
            return None
        except OSError as error:
            self._raise(error)

    def _send_now(self, item: bytes | memoryview) -> int | None:
        try:
            return self.socket.send(item)
        except BlockingIOError:
            return None

    def _hand_over(self, size: int, take: Callable[[bytes], bool]) -> None:
        # Copied at once, because the next socket is read into the same buffer.
        if take(bytes(self._scratch[:size])):
            self._take = None

    async def _readable(self) -> None:
        """Wait until there may be something to read. In `deliver` it may have been taken already."""
        try:
            if self._reactor is None or self._take is None:
                await anyio.wait_readable(self.socket)
            else:
                await self._reactor.wait(self)
        except OSError as error:
            self._raise(error)

    async def _give_way(self) -> None:
        """Before anything is taken or sent, so that a cancellation here loses nothing."""
        self._calls += 1
        await (checkpoint_if_cancelled() if self._calls % _CALLS_PER_CHECKPOINT else checkpoint())

    def _raise(self, error: OSError) -> NoReturn:
        if not self._is_closed:
            raise anyio.BrokenResourceError from error
        closed = anyio.ClosedResourceError()
        try:
            raise closed
        finally:
            closed.__context__ = None  # a bad descriptor, which says nothing to whoever has closed it
