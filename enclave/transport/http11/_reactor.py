"""The wait for many sockets at once, by one of the tasks that wait. It is for streams on trio, on Linux.

Trio lets a task wait for one socket, once. So each read of a stream takes two steps of its task, and a system call to
watch the socket again. Here the sockets of all streams that wait are in one epoll, and stay there. One of their tasks,
the leader, waits for that epoll and reads for all of them. When it leaves, another one takes its place. So there is no
task but those of the streams, and none of them is woken for a read. Measured in benchmarks/README.md.
"""

from __future__ import annotations

import select
import socket
from typing import Any, Protocol

import anyio

from enclave._loop import Wakeup, wake_those_who_wait_for

# Linux's. Type checkers that look from elsewhere do not know them.
_EPOLL: Any = getattr(select, "epoll", None)
_EPOLLIN: int = getattr(select, "EPOLLIN", 0)
HAS_EPOLL = _EPOLL is not None
"""Whether there can be a reactor here."""

_READS_PER_TURN = 128
"""After so many reads other tasks have their turn."""


class Waiter(Protocol):
    """A stream that waits."""

    @property
    def socket(self) -> socket.socket:
        """Its socket."""
        ...

    def read_on(self) -> bool:
        """Take what has come, without waiting, and give whether to wait for more. It raises nothing."""
        ...


class _Entry:
    """One stream of those that wait."""

    __slots__ = ("waiter", "wakeup")

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.wakeup: Wakeup | None = None  # exists while the task of the stream waits, other than as the leader


class Reactor:
    """What one event loop has of it."""

    def __init__(self) -> None:
        self._epoll: Any = None  # open while a stream waits
        self._entries: dict[int, _Entry] = {}  # by descriptor
        self._leader: _Entry | None = None

    async def wait(self, waiter: Waiter) -> None:
        """Call `read_on` each time that there is something to read, until it gives False or `leave` is called.

        A cancelled call has lost nothing: what came was read by `read_on`, or is still with the kernel.
        """
        descriptor = waiter.socket.fileno()
        entry = _Entry(waiter)
        try:
            self._begin_wait(descriptor, entry)
            while self._entries.get(descriptor) is entry:
                if self._leader is None:
                    self._leader = entry
                if self._leader is entry:
                    await self._lead()
                else:
                    entry.wakeup = Wakeup()
                    await entry.wakeup.wait()
        finally:
            if self._entries.get(descriptor) is entry:
                self._end_wait(descriptor, entry)
            if self._leader is entry or self._leader is None:
                self._resign()

    def leave(self, waiter: Waiter) -> None:
        """End the wait of a stream whose socket is about to be closed. Harmless if it does not wait."""
        descriptor = waiter.socket.fileno()
        entry = self._entries.get(descriptor)
        if entry is None or entry.waiter is not waiter:
            return
        self._end_wait(descriptor, entry)
        if entry is self._leader:
            wake_those_who_wait_for(self._open_epoll())

    def _open_epoll(self) -> Any:
        if self._epoll is None:
            self._epoll = _EPOLL()
        return self._epoll

    def _begin_wait(self, descriptor: int, entry: _Entry) -> None:
        self._open_epoll().register(descriptor, _EPOLLIN)
        self._entries[descriptor] = entry

    def _end_wait(self, descriptor: int, entry: _Entry) -> None:
        del self._entries[descriptor]
        self._open_epoll().unregister(descriptor)
        if entry.wakeup is not None:
            entry.wakeup.wake()

    def _resign(self) -> None:
        """Make another task the leader, or close the epoll if none waits."""
        self._leader = None
        if self._entries:
            # The youngest, which will mostly stay the longest. To look at the oldest would be to step over all that left.
            descriptor, self._leader = self._entries.popitem()
            self._entries[descriptor] = self._leader
            if self._leader.wakeup is not None:
                self._leader.wakeup.wake()
        elif self._epoll is not None:
            epoll, self._epoll = self._epoll, None
            epoll.close()

    async def _lead(self) -> None:
        """Wait until some of the sockets can be read, and have their streams do that."""
        epoll = self._open_epoll()
        try:
            await anyio.wait_readable(epoll)
        except anyio.ClosedResourceError:
            return  # the leader's own socket is about to be closed
        for descriptor, _ in epoll.poll(0, _READS_PER_TURN):
            entry = self._entries.get(descriptor)
            if entry is None or entry.waiter.read_on():
                continue
            if self._entries.get(descriptor) is entry:  # it may have closed its socket
                self._end_wait(descriptor, entry)
