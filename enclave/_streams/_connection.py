"""One connection of a stream: from its request to the session's end, or to the point where it breaks."""

from __future__ import annotations

import math
from http import HTTPStatus
from types import TracebackType
from typing import Self

import anyio

from enclave.errors import APIStatusError, APITimeoutError, EnclaveError
from enclave.transport import Http

from ._buffer import FrameBuffer
from ._decoder import FrameDecoder
from ._history import History
from ._source import EventSource
from ._warnings import UnknownFrameLog

_STOOD_SECONDS = 0.5
"""A connection that was open for so long before it broke was a good one, though nothing may have come."""


class Dropped(EnclaveError):
    """The server closed the stream before the `end` frame."""


class _Clocks:
    """When something last came, on the event loop's clock."""

    __slots__ = ("asked", "frame", "opened", "read")

    def __init__(self) -> None:
        self.opened = math.inf
        self.read = self.frame = self.asked = 0.0


class Connection:
    """Fills a `FrameBuffer` with what one connection has that is new. Use it with ``async with``."""

    __slots__ = (
        "_buffer",
        "_clocks",
        "_decoder",
        "_has_brought_frames",
        "_history",
        "_source",
        "_timeout",
        "_unfinished_bytes",
        "_was_given_up_by_proxy",
        "last_event_id",
    )

    def __init__(
        self, http: Http, path: str, history: History, buffer: FrameBuffer, unknown_frames: UnknownFrameLog
    ) -> None:
        self.last_event_id = history.resume_id()
        """The id to go on after. None if the session is replayed from its first event."""
        self._source = EventSource(http, path, self.last_event_id)
        self._decoder = FrameDecoder(
            history, max_event_bytes=http.settings.max_event_bytes, on_unknown=unknown_frames.note
        )
        self._history = history
        self._buffer = buffer
        self._timeout = http.settings.timeout
        self._clocks = _Clocks()
        self._has_brought_frames = False
        self._was_given_up_by_proxy = False
        self._unfinished_bytes = 0  # read since the last batch, so they belong to the next one

    async def __aenter__(self) -> Self:
        """Open it. Raises as `EventSource` does."""
        self._clocks.asked = anyio.current_time()
        try:
            await self._source.__aenter__()
        except APIStatusError as error:
            self._was_given_up_by_proxy = error.status == HTTPStatus.GATEWAY_TIMEOUT
            raise
        self._clocks.opened = self._clocks.read = anyio.current_time()
        self._history.connected(asked_to_go_on=self.last_event_id is not None)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._source.__aexit__(exc_type, exc, traceback)

    @property
    def has_opened(self) -> bool:
        """Whether the server answered with a stream."""
        return self._clocks.opened < math.inf

    @property
    def was_of_use(self) -> bool:
        """Whether this was more than a failed attempt. To be asked as soon as it has ended.

        It brought something new, or nothing came for a while before it closed: that is a quiet session behind a proxy
        that closes what is quiet, or answers 504 if it holds back the head of a stream until its first event comes. A
        replay that broke off while its bytes flowed was of no use, however long it took: the next one starts over.
        """
        if self._has_brought_frames:
            return True
        enough = min(_STOOD_SECONDS, self._timeout.stream_idle or math.inf)
        clocks = self._clocks
        if not self.has_opened:
            return self._was_given_up_by_proxy and anyio.current_time() - clocks.asked >= enough
        # A proxy that buffers holds back the head too, and gives out all it has when it closes.
        was_held_back = clocks.opened - clocks.asked >= enough and not self._history.is_replaying
        return was_held_back or anyio.current_time() - clocks.read >= enough

    @property
    def retry_ms(self) -> int | None:
        """The reconnection time that the server asked for on this connection, in milliseconds."""
        return self._decoder.retry_ms

    async def read_to_end(self) -> None:
        """Read until the session has ended. Raises if the connection ends before that, or is silent for too long.

        One cancel scope spans many reads, since making one costs as much as a read. Its deadline is only looked at when
        it has passed: if bytes have come since it was set, it is set anew. The cancelled read has lost nothing.
        """
        self._clocks.read = self._clocks.frame = anyio.current_time()
        while True:
            with anyio.CancelScope(deadline=self._deadline()) as scope:
                if await self._read(scope):
                    return
            if self._buffer.is_full:
                await self._buffer.wait_for_room()
                self._clocks.read = self._clocks.frame = anyio.current_time()
                continue
            now = anyio.current_time()
            if now >= self._end_deadline():
                return  # silence after a terminal phase: nothing more will come
            if now >= self._idle_deadline():
                raise APITimeoutError(f"no bytes came within {self._timeout.stream_idle:g} s")

    async def drain(self) -> None:
        """Let the server finish in good order, if it was about to."""
        # Without an `end` frame the server has either closed already, or was silent for long enough.
        if self._decoder.ended:
            await self._source.drain()

    def _deadline(self) -> float:
        return min(self._idle_deadline(), self._end_deadline())

    def _idle_deadline(self) -> float:
        seconds = self._source.idle_seconds
        return math.inf if seconds is None else self._clocks.read + seconds

    def _end_deadline(self) -> float:
        # Counted from the last frame and not from the last byte, for heartbeats may go on for ever.
        seconds = self._timeout.stream_end
        return self._clocks.frame + seconds if seconds is not None and self._is_all_there else math.inf

    @property
    def _is_all_there(self) -> bool:
        """Whether the workload has ended, and all that is left of the stream are its last frames."""
        return self._history.has_ended_workload and not self._history.is_replaying

    async def _read(self, scope: anyio.CancelScope) -> bool:
        """Read until the session has ended (True) or the buffer is full (False)."""
        # This loop runs for every read of every stream, so it looks each of these up once.
        clocks, decoder, buffer = self._clocks, self._decoder, self._buffer
        while data := await self._source.read():
            clocks.read = anyio.current_time()
            self._unfinished_bytes += len(data)
            frames = decoder.feed(data)
            if frames:
                clocks.frame = clocks.read
                self._has_brought_frames = True
                buffer.put(frames, self._unfinished_bytes)
                self._unfinished_bytes = 0
            if decoder.ended:
                if decoder.failure is not None:
                    raise decoder.failure
                return True
            if buffer.is_full:
                return False
            if self._history.has_ended_workload:
                # The scope was opened with the idle timeout, which is much longer than the wait for the last frames.
                scope.deadline = self._deadline()
            del data, frames  # 64 KiB of them may have come before the server fell silent
        if self._is_all_there:
            return True  # the server closed in good order, only without its `end` frame
        raise Dropped("the server closed the stream before its end frame")
