"""One connection of a stream: from its request to the session's end, or to the point where it breaks."""

from __future__ import annotations

import math
from http import HTTPStatus

import anyio

from enclave._loop import clock
from enclave.errors import APIStatusError, APITimeoutError, EnclaveError
from enclave.transport import Body, Http

from ._buffer import FrameBuffer
from ._decoder import FrameDecoder
from ._history import History
from ._source import open_source
from ._warnings import UnknownFrameLog

_STOOD_SECONDS = 0.5
"""A connection that was open for so long before it broke was a good one, though nothing may have come."""
_DRAIN_SECONDS = 1.0
_LAST_LOOK_SECONDS = 0.01
"""How long a read waits after the deadline. Enough for the event loop to look at the socket once."""


class Dropped(EnclaveError):
    """The server closed the stream before the `end` frame."""


class Connection:
    """Fills a `FrameBuffer` with what one connection has that is new. Whoever opens it closes it."""

    __slots__ = (
        "_asked_at",
        "_body",
        "_buffer",
        "_decoder",
        "_failure",
        "_frame_at",
        "_got_gateway_timeout",
        "_has_brought_frames",
        "_history",
        "_http",
        "_is_last_look",
        "_known_at",
        "_now",
        "_opened_at",
        "_path",
        "_read_at",
        "_repeated",
        "_timeout",
        "_unfinished_bytes",
        "_unknown_frames",
        "last_event_id",
    )

    def __init__(
        self, http: Http, path: str, history: History, buffer: FrameBuffer, unknown_frames: UnknownFrameLog
    ) -> None:
        self.last_event_id = history.resume_id()
        """The id to go on after. None if the session is replayed from its first event."""
        self._http = http
        self._path = path
        self._body: Body | None = None  # once it is open
        self._decoder = FrameDecoder(
            history, max_event_bytes=http.settings.max_event_bytes, unknown_frames=unknown_frames
        )
        self._unknown_frames = unknown_frames
        self._failure: Exception | None = None  # a fault of ours, met while something was taken in
        self._history = history
        self._buffer = buffer
        self._timeout = http.settings.timeout
        self._has_brought_frames = False
        self._repeated = 0  # events, by the latest read
        self._is_last_look = False  # the deadline has passed, and a read is made to see whether something has come
        self._got_gateway_timeout = False
        self._unfinished_bytes = 0  # read since the last batch, so they belong to the next one
        self._now = clock()
        # When something last came, by that.
        self._asked_at = 0.0
        self._opened_at = math.inf
        self._read_at = self._frame_at = 0.0
        self._known_at = 0.0  # a frame that was known, or a part of a frame

    async def open(self) -> None:
        """Open it. Raises as `open_source` does."""
        self._asked_at = self._now()
        try:
            self._body = await open_source(self._http, self._path, self.last_event_id)
        except APIStatusError as error:
            self._got_gateway_timeout = error.status == HTTPStatus.GATEWAY_TIMEOUT
            raise
        self._opened_at = self._known_at = self._read_at = self._frame_at = self._now()
        self._history.connected(asked_to_go_on=self.last_event_id is not None)

    async def aclose(self) -> None:
        """Close it, cancelled or not, within a deadline."""
        if self._body is not None:
            await self._body.aclose()

    @property
    def has_opened(self) -> bool:
        """Whether the server answered with a stream."""
        return self._body is not None

    @property
    def reads_unshielded(self) -> bool:
        """Whether `Task.cancel` may strike while it reads. A body that is not ours may just be closing, in a shield."""
        return self._source.read_is_repeatable

    @property
    def has_stalled(self) -> bool:
        """Whether frames came that were known, or a part of one, and none that was new."""
        has_come = self._decoder.has_begun_event or self._history.repeated > 0
        return self.has_opened and has_come and not self._has_brought_frames

    @property
    def was_of_use(self) -> bool:
        """Whether this was more than a failed attempt. To be asked as soon as it has ended.

        It brought something new, or nothing but heartbeats for a while before it closed: that is a quiet session behind
        a proxy that closes what is quiet, or what is old. A replay that broke off while its bytes flowed was of no use,
        however long it took: the next one starts over.
        """
        if self._has_brought_frames or not self.has_opened:
            return self._has_brought_frames
        enough = self._enough_seconds
        # A proxy that buffers holds back the head too, and gives out all it has when it closes.
        was_held_back = self._opened_at - self._asked_at >= enough and not self._history.is_replaying
        return was_held_back or self._now() - self._known_at >= enough

    @property
    def was_given_up_by_proxy(self) -> bool:
        """Whether a proxy answered 504 after a silence. To be asked as soon as that has come.

        So it does with a quiet session if it holds back the head of a stream until the first event comes. And so it
        does for ever where the server behind it is gone.
        """
        return self._got_gateway_timeout and self._now() - self._asked_at >= self._enough_seconds

    @property
    def _enough_seconds(self) -> float:
        return min(_STOOD_SECONDS, self._timeout.stream_idle or math.inf)

    @property
    def retry_ms(self) -> int | None:
        """The reconnection time that the server asked for on this connection, in milliseconds."""
        return self._decoder.retry_ms

    async def read_to_end(self, scope: anyio.CancelScope) -> None:
        """Read until the session has ended. Raises if the connection ends before that, or is silent for too long.

        It is called within `scope`, and again in another one whenever the deadline of that has passed. One scope spans
        many reads, since making one costs as much as a read. Its deadline is only looked at when it has passed: it is
        set anew if bytes have come since. The cancelled read has lost nothing.
        """
        while not self._has_read_all():
            if self._buffer.is_full:
                scope.deadline = math.inf
                await self._buffer.wait_for_room()
                self._read_at = self._frame_at = self._now()
            now, deadline = self._now(), self._deadline()
            if now < deadline:
                self._is_last_look = False
            elif self._source.read_is_repeatable and not self._is_last_look:
                # Other code may have kept the event loop busy past the deadline, and what came meanwhile was not read.
                self._is_last_look = True
                deadline = now + _LAST_LOOK_SECONDS
            elif now >= self._end_deadline():
                return
            else:
                raise APITimeoutError(f"no bytes came within {self._timeout.stream_idle:g} s")
            scope.deadline = deadline
            if not await self._source.deliver(self._take):
                if self._is_all_there:
                    return  # the server closed in good order, only without its `end` frame
                raise Dropped("the server closed the stream before its end frame")

    def _has_read_all(self) -> bool:
        """Whether the end was read. Raises if what came is out of bounds, or could not be taken in."""
        if self._failure is not None:
            try:
                raise self._failure
            finally:
                self._failure = None  # its traceback refers to this object
        self._unknown_frames.write()
        if self._decoder.failure is not None:
            raise self._decoder.failure
        return self._decoder.ended

    def _take(self, data: bytes) -> bool:
        """Take in what one read gave. Gives whether `read_to_end` has something else to do than to wait for more."""
        try:
            return self._take_in(data)
        except Exception as error:  # noqa: BLE001 - raised by `read_to_end`, for this may be called by the event loop
            self._failure = error
            return True

    def _take_in(self, data: bytes) -> bool:
        now = self._now()
        self._read_at = now
        self._unfinished_bytes += len(data)
        decoder = self._decoder
        frames = decoder.feed(data)
        if frames:
            self._frame_at = now
            self._has_brought_frames = True
            self._buffer.put(frames, self._unfinished_bytes)
            self._unfinished_bytes = 0
        elif decoder.has_begun_event or self._history.repeated > self._repeated:
            self._known_at = now
            self._repeated = self._history.repeated
        # After the workload the deadline is a new one with each read. Before that it is the idle timeout's, which is
        # looked at when it has passed.
        has_more_to_do = decoder.ended or self._buffer.is_full or self._unknown_frames.has_unwritten
        return has_more_to_do or self._history.has_ended_workload

    async def drain(self, scope: anyio.CancelScope) -> None:
        """After the last frame, read on to the end that the server is about to send, so that it is not cut off.

        The deadline of `scope` ends this, if the server does not.
        """
        # Without an `end` frame the server has either closed already, or was silent for long enough.
        if not self._decoder.ended or self._source.is_complete:
            return
        scope.deadline = self._now() + _DRAIN_SECONDS
        while await self._source.read():
            pass

    @property
    def _source(self) -> Body:
        if self._body is None:
            raise RuntimeError("the connection was not opened")
        return self._body

    def _deadline(self) -> float:
        return min(self._idle_deadline(), self._end_deadline())

    def _idle_deadline(self) -> float:
        # A read of a transport that is not ours cannot be cancelled and done again, and keeps the idle timeout itself.
        seconds = self._timeout.stream_idle if self._source.read_is_repeatable else None
        return math.inf if seconds is None else self._read_at + seconds

    def _end_deadline(self) -> float:
        # Counted from the last frame and not from the last byte, for heartbeats may go on for ever.
        seconds = self._timeout.stream_end
        return self._frame_at + seconds if seconds is not None and self._is_all_there else math.inf

    @property
    def _is_all_there(self) -> bool:
        """Whether the workload has ended, and all that is left of the stream are its last frames."""
        return self._history.has_ended_workload and not self._history.is_replaying
