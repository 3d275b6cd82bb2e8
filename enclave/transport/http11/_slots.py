"""How many requests may hold a connection at once. O(1) for each, first come first served.

anyio's own semaphores search their queue when a waiter is cancelled. With thousands queued that is quadratic.
"""

from __future__ import annotations

from collections import OrderedDict

import anyio


class Slots:
    """A fixed number of slots. Each is free, held by one request, or being handed to the first in the queue."""

    __slots__ = ("_queue", "free", "total")

    def __init__(self, total: int) -> None:
        self.total = self.free = total
        self._queue: OrderedDict[anyio.Event, None] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many are in the queue."""
        return len(self._queue)

    async def acquire(self, seconds: float | None) -> bool:
        """Take a slot, in turn. Gives False if none came within `seconds`."""
        if self.free > 0:
            self.free -= 1
            return True
        turn = anyio.Event()
        self._queue[turn] = None
        try:
            with anyio.move_on_after(seconds):
                await turn.wait()
        except BaseException:
            self._leave(turn)
            raise
        if turn.is_set():  # also where the deadline struck just after the hand-over
            return True
        del self._queue[turn]
        return False

    def release(self) -> None:
        """Give a slot back: to the first in the queue, if there is one."""
        # The count may be below zero, where a closed pool has let everybody in.
        self.free += 1
        if self._queue and self.free > 0:
            self._admit_first()

    def admit_all(self) -> None:
        """Let the whole queue in, beyond the total: the pool has closed, and each is to find that out."""
        while self._queue:
            self._admit_first()

    def _admit_first(self) -> None:
        turn, _ = self._queue.popitem(last=False)
        self.free -= 1
        turn.set()

    def _leave(self, turn: anyio.Event) -> None:
        # Handed over at the moment of the cancellation: pass it on, or it is lost for good.
        if turn.is_set():
            self.release()
        else:
            del self._queue[turn]
