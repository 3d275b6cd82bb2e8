"""`FrameStream`: the live frames of one session, as an async context manager and iterator.

Entering starts one task, the `StreamReader`, which belongs to the stream. Leaving ends it. The reader raises nothing:
it records why it ended, and the consumer raises that. So callers get one plain exception, never a group, and an
exception of the body passes through as it is.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from enclave._loop import uninterrupted
from enclave._pace import begin_in_turn
from enclave._routes import session_path
from enclave.errors import UsageError
from enclave.types import StreamFrame

from ._buffer import FrameBuffer

if TYPE_CHECKING:
    from enclave.transport import Http

    from ._reader import StreamReader

DEFAULT_MAX_BUFFERED_BYTES = 256 * 1024
"""Default bound of what was read from the network and not yet taken by the consumer, in bytes."""


class _State(enum.Enum):
    NEW = "new"
    OPEN = "open"
    CLOSED = "closed"


class FrameStream:
    """The frames of one session: the past ones first, then the live ones, each once and in order, `EndFrame` last.

    ::

        async with client.stream(session_id) as frames:
            async for frame in frames:
                ...

    Connections that break are resumed. If that cannot be done exactly, iterating raises `StreamInterrupted`.
    A frame that cannot be read is an `UnknownFrame` in its place.
    """

    def __init__(self, http: Http, session_id: str, watch: Callable[[list[StreamFrame]], None] | None = None) -> None:
        self.session_id = session_id
        """The session whose frames these are."""
        session_path(session_id)  # raises for an id that names no session
        self._http = http
        self._buffer = FrameBuffer(http.settings.max_buffered_bytes)
        self._reader: StreamReader | None = None
        self._watch = watch  # is shown each batch that the consumer takes
        self._state = _State.NEW
        self._taken = 0  # frames that left the buffer, those that are still in `_left` included
        # Of the batch that is given out one by one, the last frame first. None: thousands of streams have nothing left.
        self._left: list[StreamFrame] | None = None

    def __repr__(self) -> str:
        given = self._taken - len(self._left or ())
        return f"<FrameStream session={self.session_id!r} {self._state.value} frames={given} resumes={self.resumes}>"

    @property
    def resumes(self) -> int:
        """How many times the stream was resumed on a new connection."""
        return self._reader.resumes if self._reader else 0

    def cancel(self) -> None:
        """Stop the stream: iteration ends without an error, frames not yet taken are dropped. From any task."""
        if self._reader:
            self._reader.cancel()
        self._discard()

    @uninterrupted
    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            UsageError: the client is closed, or the stream was entered before.
            APIStatusError: the server refuses, as with `NotFoundError`.
            APIConnectionError: it cannot be reached.
            ProtocolError: it answers something that is no event stream.
        """
        if self._state is not _State.NEW:
            raise UsageError("a FrameStream is entered once. Call stream() again for another one")
        self._http.check_open()
        self._state = _State.OPEN
        # Thousands of streams that are opened at the same moment would keep the event loop from all else.
        await begin_in_turn()
        from ._reader import StreamReader  # noqa: PLC0415 - brings in what only a stream needs

        self._reader = StreamReader(self._http, self.session_id, self._buffer)
        try:
            await self._reader.start()
            await self._buffer.wait_until_open()
        except BaseException:
            # `__aexit__` is not called for a block that was not entered.
            self._close()
            await self._reader.aclose()
            raise
        return self

    @uninterrupted
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()
        if self._reader:
            await self._reader.aclose()

    def _close(self) -> None:
        self._state = _State.CLOSED
        self._discard()

    def _discard(self) -> None:
        self._buffer.discard()
        self._taken -= len(self._left or ())
        self._left = None

    def __aiter__(self) -> Self:
        self._check_open()
        return self

    async def __anext__(self) -> StreamFrame:
        """The next frame.

        Raises:
            StreamInterrupted: the stream broke and could not be resumed exactly.
            EventTooLargeError: an event exceeds the client's `max_event_bytes`.
        """
        left = self._left
        if not left:
            self._check_open()
            batch = self._took(await self._buffer.get())
            # Another task may have taken a batch meanwhile. What is left of that comes first, and this goes behind it.
            left = self._left = batch[::-1] + (self._left or [])
        frame = left.pop()
        if not left:
            self._left = None
        return frame

    def batches(self) -> FrameBatches:
        """The same frames in lists, as they arrived together: the fast lane for much output.

        ::

            async for batch in frames.batches():
                for frame in batch:
                    ...
        """
        self._check_open()
        return FrameBatches(self._next_batch)

    async def _next_batch(self) -> list[StreamFrame]:
        if self._left:
            rest, self._left = self._left[::-1], None
            return rest
        self._check_open()
        return self._took(await self._buffer.get())

    def _took(self, batch: list[StreamFrame]) -> list[StreamFrame]:
        if not batch:
            raise StopAsyncIteration
        self._taken += len(batch)
        if self._watch is not None:
            self._watch(batch)
        return batch

    def _check_open(self) -> None:
        if self._state is _State.NEW:
            raise UsageError(
                "this stream is not open. Write 'async with session.stream() as frames:', and in that block "
                "'async for frame in frames:'"
            )
        if self._state is _State.CLOSED:
            raise UsageError("this stream is closed. Iterate inside its async with block")


class FrameBatches:
    """An async iterator over lists of frames.

    A wait for a batch may be cancelled, by a timeout for example. The next wait goes on where that one stood, and no
    frame is lost.
    """

    def __init__(self, next_batch: Callable[[], Awaitable[list[StreamFrame]]]) -> None:
        self._next_batch = next_batch

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[StreamFrame]:
        """The next batch, never an empty one. Raises as `FrameStream.__anext__` does."""
        return await self._next_batch()
