"""The wait for many sockets at once, by one of the tasks that wait. It is for streams on trio, on Linux.

Trio lets a task wait for one socket, once. So each read of a stream takes two steps of its task, and a system call to
watch the socket again. Here the sockets of all streams that wait are in one epoll, and stay there. One of their tasks,
the leader, waits for that epoll and reads for all of them. When it leaves, another one takes its place. So there is no
task but those of the streams, and a read wakes none of them as long as its stream waits for more. Measured in
benchmarks/README.md.
"""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from typing import Any, Protocol

import anyio

from enclave._loop import Wakeup, wake_those_who_wait_for

# Linux's. Type checkers that look from elsewhere do not know them.
_EPOLL: Any = getattr(select, "epoll", None)
_EPOLLIN: int = getattr(select, "EPOLLIN", 0)
HAS_EPOLL = _EPOLL is not None
"""Whether there can be a reactor here."""

_STREAMS_PER_TURN = 128
"""When so many streams have read, other tasks have their turn."""


class Waiter(Protocol):
    """A stream that waits."""

    @property
    def socket(self) -> socket.socket:
        """Its socket."""
        ...

    def read_on(self) -> bool:
        """Take what has come, without waiting, and give whether to wait for more. It raises no `Exception`."""
        ...


class _Entry:
    """One stream of those that wait."""

    __slots__ = ("waiter", "wakeup")

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.wakeup = Wakeup()  # for the end of the wait, and to become the leader


class Reactor:
    """What one event loop has of it."""

    def __init__(self) -> None:
        self._epoll: Any = None  # open while a stream waits
        self._entries: dict[int, _Entry] = {}  # by descriptor
        self._leader: _Entry | None = None
        self._is_usable = True

    async def wait(self, waiter: Waiter) -> None:
        """Return when there may be something to read that `read_on` has not read, or when `leave` is called.

        Until then `read_on` is called each time that there is something to read, by whichever task. A cancelled call
        has lost nothing: what came was read by `read_on`, or is still with the kernel.
        """
        descriptor = waiter.socket.fileno()
        entry = self._entered(descriptor, waiter)
        if entry is None:
            await anyio.wait_readable(waiter.socket)
            return
        try:
            while self._entries.get(descriptor) is entry:
                if self._leader is None:
                    self._leader = entry
                if self._leader is entry:
                    await self._lead()
                else:
                    await entry.wakeup.wait()
        finally:
            if self._entries.get(descriptor) is entry:
                self._end_wait(descriptor, entry)
            if self._leader is entry:
                self._resign()

    def leave(self, waiter: Waiter) -> None:
        """End the wait of a stream whose socket is about to be closed. Harmless if it does not wait."""
        descriptor = waiter.socket.fileno()
        entry = self._entries.get(descriptor)
        if entry is not None:
            self._end_wait(descriptor, entry)
            if entry is self._leader:
                wake_those_who_wait_for(self._epoll)

    def _entered(self, descriptor: int, waiter: Waiter) -> _Entry | None:
        """The entry of a stream that begins to wait. None if it has to wait by itself, for want of files or memory."""
        if not self._is_usable:
            return None
        try:
            epoll = self._epoll or _EPOLL()
            epoll.register(descriptor, _EPOLLIN)
        except OSError:
            return None
        self._epoll = epoll
        entry = self._entries[descriptor] = _Entry(waiter)
        return entry

    def _end_wait(self, descriptor: int, entry: _Entry) -> None:
        del self._entries[descriptor]
        entry.wakeup.wake()
        with suppress(OSError, ValueError):  # other code has closed the descriptor, and with that unregistered it
            self._epoll.unregister(descriptor)

    def _resign(self) -> None:
        """Make another task the leader, or close the epoll if none waits."""
        self._leader = None
        if self._entries:
            # The youngest, since to find the oldest would be to step over all that have left.
            descriptor, self._leader = self._entries.popitem()
            self._entries[descriptor] = self._leader
            self._leader.wakeup.wake()
        else:
            self._epoll.close()
            self._epoll = None

    async def _lead(self) -> None:
        """Wait until some of the sockets can be read, and have their streams do that."""
        try:
            await anyio.wait_readable(self._epoll)
        except anyio.ClosedResourceError:
            return  # the leader's own socket is about to be closed
        except OSError:
            # The event loop cannot watch an epoll, for want of memory say. That is no fault of the streams.
            self._is_usable = False
            for each in list(self._entries.items()):
                self._end_wait(*each)
            return
        for descriptor, _ in self._epoll.poll(0, _STREAMS_PER_TURN):
            entry = self._entries.get(descriptor)
            if entry is not None:
                self._read(descriptor, entry)

    def _read(self, descriptor: int, entry: _Entry) -> None:
        waits_on = False
        try:
            waits_on = entry.waiter.read_on()
        finally:
            if not waits_on and self._entries.get(descriptor) is entry:  # it may have closed its socket
                self._end_wait(descriptor, entry)
