"""`SyncFrameStream`: a `FrameStream` for a thread. One hand-over between the threads brings a batch of frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Self

from enclave._streams import FrameBatches, FrameStream
from enclave.types import StreamFrame

from ._block import IteratedBlock
from ._driver import Driver, reworded
from ._mirror import like


class SyncFrameStream(IteratedBlock[FrameStream]):
    """The frames of one session: the past ones first, then the live ones, each once and in order, `EndFrame` last.

    ::

        with client.stream(session_id) as frames:
            for frame in frames:
                ...

    Leaving the block closes the stream. ``for frame in client.stream(session_id)`` works without a block too. Then the
    stream is closed when it has ended, and soon after the loop was left before that.

    Connections that break are resumed. If that cannot be done exactly, iterating raises `StreamInterrupted`.
    A frame that cannot be read is an `UnknownFrame` in its place.
    """

    def __init__(self, target: FrameStream, driver: Driver) -> None:
        super().__init__(target, driver)
        self._left: deque[StreamFrame] = deque()  # of the batch that is given out one by one
        self._source: FrameBatches | None = None

    @property
    def session_id(self) -> str:
        """The session whose frames these are."""
        return self._async.session_id

    @property
    @like(FrameStream.resumes)
    def resumes(self) -> int:
        return self._async.resumes

    @like(FrameStream.cancel)
    def cancel(self) -> None:
        self._check_process()
        self._driver.call(self._cancel())
        self._left.clear()

    @like(FrameStream.__aenter__)
    def __enter__(self) -> Self:
        self._is_in_block = True
        self._enter()
        return self

    def __iter__(self) -> Self:
        self._open()
        return self

    @like(FrameStream.__anext__)
    def __next__(self) -> StreamFrame:
        while True:
            try:
                return self._left.popleft()
            except IndexError:
                self._left.extend(self._take())

    @like(FrameStream.batches)
    def batches(self) -> SyncFrameBatches:
        self._open()
        return SyncFrameBatches(self._next_batch)

    def _next_batch(self) -> list[StreamFrame]:
        if self._left:
            rest = list(self._left)
            self._left.clear()
            return rest
        return self._take()

    def _open(self) -> None:
        """Connect, where no ``with`` did it, and see that the stream can be read."""
        self._check_process()
        if self._held is None:
            self._enter()
        if not self._is_through:
            with reworded():
                self._source = self._async.batches()

    def _take(self) -> list[StreamFrame]:
        if self._source is None:
            self._open()
        self._check_process()
        if self._is_through or self._source is None:
            raise StopIteration
        source = self._source
        return self._waited(lambda: self._driver.call(source.__anext__(), self._put_back))

    def _leave(self, body_error: BaseException | None = None) -> None:
        self._left.clear()
        super()._leave(body_error)

    async def _put_back(self, batch: list[StreamFrame]) -> None:
        self._left.extend(batch)

    async def _cancel(self) -> None:
        self._async.cancel()


class SyncFrameBatches:
    """An iterator over lists of frames. A wait for a batch may be interrupted, and no frame is lost by that."""

    def __init__(self, next_batch: Callable[[], list[StreamFrame]]) -> None:
        self._next_batch = next_batch

    def __iter__(self) -> Self:
        return self

    @like(FrameBatches.__anext__)
    def __next__(self) -> list[StreamFrame]:
        return self._next_batch()
