"""What a stream's reader hands to its consumer: batches of frames, bounded in bytes, with the reason for the end.

There is one reader and usually one consumer, both in one event loop, so no state here needs a lock. A batch is taken
out without an await between taking and returning, so a consumer that is cancelled loses nothing. A memory object stream
can lose an item there, and costs several times as much for each read.
"""

from __future__ import annotations

from anyio.lowlevel import checkpoint

from enclave._loop import Wakeup
from enclave.types import StreamFrame


class FrameBuffer:
    """Batches on their way from the reader to the consumer.

    Args:
        max_bytes: how many bytes of the wire may wait here. The reader stops reading from then on, at most one network
            read (256 KiB) or one event later, so the server is slowed down and memory is not filled.
    """

    __slots__ = ("_batches", "_bytes", "_changed", "_end_error", "_ended", "_is_open", "_max_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        # A list, and none while nothing waits: an empty deque takes 600 bytes, in each of many streams.
        self._batches: list[tuple[list[StreamFrame], int]] | None = None
        self._bytes = 0
        self._ended = False
        self._end_error: Exception | None = None
        self._is_open = False
        self._changed = Wakeup()  # one for the reader and the consumer, who each look at what they wait for

    def put(self, batch: list[StreamFrame], wire_bytes: int) -> None:
        """Add what one network read completed. Never waits. Call `wait_for_room` before the next read."""
        if self._ended:
            return  # a reader that is being cancelled may still have had a read to hand over
        if self._batches is None:
            self._batches = [(batch, wire_bytes)]
        else:
            self._batches.append((batch, wire_bytes))
        self._bytes += wire_bytes
        self._changed.wake()

    def open(self) -> None:
        """The stream stands: batches will follow."""
        self._is_open = True
        self._changed.wake()

    async def wait_until_open(self) -> None:
        """Wait until the stream stands, or has ended without ever having stood.

        Raises:
            What ended it, if not a single batch came before that.
        """
        while not (self._is_open or self._ended):
            await self._changed.wait()
        if self._end_error is not None and not self._batches:
            raise self._end_error

    @property
    def is_full(self) -> bool:
        """Whether the reader must wait for the consumer."""
        return self._bytes >= self._max_bytes

    async def wait_for_room(self) -> None:
        """Wait until the consumer has taken enough."""
        while self.is_full:
            await self._changed.wait()

    def end(self, error: Exception | None) -> None:
        """Nothing follows what is here already. `error` says why. None if the stream is complete."""
        if not self._ended:
            self._ended = True
            self._end_error = error
        self._changed.wake()

    def discard(self) -> None:
        """Drop what waits, and what may still be put, and end: the consumer wants no more, and cancels the reader."""
        self._batches = None
        self._end_error = None
        self._ended = True
        self._changed.wake()

    async def get(self) -> list[StreamFrame]:
        """The next batch. An empty one is the end of a complete stream. Raises the error that ended another one."""
        if self._batches or self._ended:
            # Every call is a checkpoint. Else the consumer of a flood could not be cancelled and would starve others.
            await checkpoint()
        while not self._batches:
            if self._ended:
                if self._end_error is not None:
                    raise self._end_error
                return []
            await self._changed.wait()
        # No await from here on: a cancellation between taking the batch and returning it would lose it.
        batch, wire_bytes = self._batches.pop(0)
        if not self._batches:
            self._batches = None
        self._bytes -= wire_bytes
        if not self.is_full:
            self._changed.wake()
        return batch
