"""How many may do something at once, such as hold a connection. O(1) for each, first come first served.

anyio's own semaphores search their queue when a waiter is cancelled. With thousands queued that is quadratic.
"""

from __future__ import annotations

from collections import OrderedDict

from ._loop import Wakeup


class _Turn(Wakeup):
    """One place in the queue."""

    __slots__ = ("has_come",)

    def __init__(self) -> None:
        super().__init__()
        self.has_come = False


class Slots:
    """A fixed number of slots. Each is free, held, or being handed to the first in the queue."""

    __slots__ = ("_queue", "free", "total")

    def __init__(self, total: int) -> None:
        self.total = self.free = total
        self._queue: OrderedDict[_Turn, None] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many are in the queue."""
        return len(self._queue)

    def take(self) -> bool:
        """Take a free slot. Gives False if there is none, and then `wait` is what gets one."""
        if self.free <= 0:
            return False
        self.free -= 1
        return True

    async def wait(self) -> None:
        """Queue for a slot, and take it when its turn comes."""
        turn = _Turn()
        self._queue[turn] = None
        try:
            while not turn.has_come:
                await turn.wait()
        except BaseException:
            self._leave(turn)
            raise

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
        turn.has_come = True
        turn.wake()

    def _leave(self, turn: _Turn) -> None:
        # Handed over at the moment of the cancellation: pass it on, or it is lost for good.
        if turn.has_come:
            self.release()
        else:
            del self._queue[turn]
