"""What carries the bytes of a connection, whichever event loop runs and whether there is TLS."""

from __future__ import annotations

import select
import socket
import sys
from collections.abc import Callable
from typing import Protocol

_CORK: int | None = getattr(socket, "TCP_CORK", None)
"""Linux's option to send no segment that has room left. What macOS has in its place does not end with the close."""


class RawSocket(Protocol):
    """What asyncio, uvloop and trio sockets have in common."""

    def fileno(self) -> int: ...
    def setsockopt(self, level: int, optname: int, value: int, /) -> None: ...


def is_readable(raw: RawSocket) -> bool:
    """Whether a socket holds bytes that were not read from it, or has come to its end, or is closed."""
    descriptor = raw.fileno()
    if descriptor < 0:
        return True
    if sys.platform == "win32":
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()  # unlike select, for any number of open files
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def hold_back(raw: RawSocket) -> None:
    """Have what is written next sent with the end of the connection, so that the peer is woken once, where that can be.

    For a socket that is closed right after that. Otherwise the kernel sends what it holds after 200 ms.
    """
    # To close a socket with bytes that were not read resets the connection, and what was held back would not be sent.
    if _CORK is not None and not is_readable(raw):
        raw.setsockopt(socket.IPPROTO_TCP, _CORK, 1)


class Stream(Protocol):
    """Bytes in both directions. One task receives, one sends."""

    @property
    def has_unread(self) -> bool:
        """Whether bytes, or the end, have come from the socket that nobody has received."""
        ...

    async def receive(self) -> bytes:
        """The next bytes. A cancelled call has taken none.

        Raises:
            anyio.EndOfStream: the peer sends no more.
            anyio.BrokenResourceError: the connection broke. anyio.ClosedResourceError: it was closed on this side.
            anyio.BusyResourceError: another task is receiving.
        """
        ...

    async def deliver(self, take: Callable[[bytes], bool]) -> None:
        """Call `take` with what comes, until it gives True, which means that it wants no more for now, or earlier.

        The event loop may make the call, between two steps of tasks, or the task of another stream. So `take` waits
        for nothing and raises nothing.
        A cancelled call has lost nothing: what came is with `take`, or is there for the next call.

        Raises:
            As `receive` does.
        """
        ...

    async def send(self, item: bytes | memoryview) -> None:
        """Send all of `item`. A cancelled call may have sent a part.

        Raises:
            anyio.BrokenResourceError: the connection broke. anyio.ClosedResourceError: it was closed on this side.
            anyio.BusyResourceError: another task is sending.
        """
        ...

    def close(self) -> None:
        """Close, now. What was not sent is dropped, and who waits for bytes gets an `anyio.ClosedResourceError`.

        Nothing is waited for, so that no cancellation can come between. Harmless when called twice.
        """
        ...


class PlainStream(Stream, Protocol):
    """The same right on a socket."""

    @property
    def socket(self) -> RawSocket:
        """The socket."""
        ...

    async def send_some(self, item: bytes | memoryview) -> int:
        """Send the first bytes of `item`, once there is room, and give their number. A cancelled call has sent none.

        Raises:
            As `send` does.
        """
        ...

    def send_last(self, item: bytes) -> None:
        """Send as much of `item` as the kernel takes at once, right before `close`, in one segment with the end.

        Raises:
            OSError: the connection broke, or the kernel takes nothing.
        """
        ...
