"""The task behind a stream: reads, decodes, reconnects, and records why it ended. It never raises into its task group.

A connection that ends before the `end` frame is a drop, however cleanly it closed. The reader then connects again,
after a growing wait, and goes on exactly where it stood: after the last id where there are ids, else by comparing the
server's replay with what was received (see `FrameDecoder`). What is bounded is the number of consecutive attempts that
bring nothing new; a silent session may time out and be resumed any number of times.
"""

from __future__ import annotations

import math

import anyio

from enclave._log import logger
from enclave._observed import ObservedStream
from enclave._routes import session_path
from enclave.errors import APITimeoutError, EnclaveError, EventTooLargeError, StreamInterrupted
from enclave.transport import Http, may_resume, may_retry
from enclave.types import StreamFrame

from ._buffer import FrameBuffer
from ._decoder import FrameDecoder
from ._position import HistoryMismatch, Position, UnprovenContinuation
from ._source import EventSource
from ._warnings import UnknownFrameLog


class _Dropped(EnclaveError):
    """The server closed the stream before the `end` frame."""


class StreamReader:
    """Fills a `FrameBuffer` with the frames of one session, each once and in order."""

    def __init__(self, http: Http, session_id: str, buffer: FrameBuffer) -> None:
        self._http = http
        self._session_id = session_id
        self._path = session_path(session_id, "stream")
        self._buffer = buffer
        self._retry = http.retry
        self._observed = ObservedStream()
        self._unknown = UnknownFrameLog(session_id)
        self._position = Position()
        self._complete = False  # the end was read; whatever happens to the connection then
        self._progressed = False
        self._retry_ms: int | None = None
        self._last_read = 0.0  # on the event loop's clock
        self._unfinished_bytes = 0  # read since the last batch, so belonging to the next one
        self.opened = anyio.Event()
        """Set once the first connection stands, or the reader has ended without one."""
        self.resumes = 0
        """How many times the stream was resumed on a new connection."""

    async def run(self) -> None:
        """Read to the end of the session, or until cancelled."""
        # Here and not where the stream is entered: this task's context is the reader's own.
        self._observed = self._http.observing.stream(self._session_id)
        try:
            error = await self._read_session()
        except BaseException as cancellation:
            self._end(None, None if self._complete else cancellation)
            raise
        self._end(error, error)

    def _end(self, error: Exception | None, reason: BaseException | None) -> None:
        self._buffer.end(error)
        self.opened.set()
        self._observed.ended(reason, self._position.count, self.resumes)

    async def _read_session(self) -> Exception | None:
        """Give the reason why the stream ended short, None where it is complete."""
        try:
            await self._read_connections()
        except EnclaveError as error:
            return self._final(error)
        except Exception as error:  # noqa: BLE001 - a caller's transport or token callable; the consumer raises it
            return error
        return None

    async def _read_connections(self) -> None:
        failures = 0
        while True:
            self._progressed = False
            try:
                await self._read_connection()
            except EnclaveError as error:
                if self._complete:
                    return
                failures = 1 if self._progressed else failures + 1
                wait = self._wait_after(error, failures)
            else:
                return
            await anyio.sleep(wait)

    def _wait_after(self, error: EnclaveError, failures: int) -> float:
        """How long to wait before the next connection; raises `error` where there should be none."""
        if failures >= self._retry.attempts or not self._is_drop(error):
            error.retries = failures - 1
            raise error
        base_seconds = None if self._retry_ms is None else self._retry_ms / 1000
        wait = self._retry.wait_before(failures, error, base_seconds=base_seconds)
        logger.debug(
            "stream of session %s: %s; resume after %d frames, attempt %d of %d, in %.2f s",
            self._session_id,
            error,
            self._position.count,
            failures,
            self._retry.attempts - 1,
            wait,
        )
        self._tell(error, failures, wait)
        return wait

    def _tell(self, error: EnclaveError, failures: int, wait: float) -> None:
        if self.opened.is_set():
            self._observed.resuming(error, failures, wait, self._position.count)
        else:
            self._observed.retrying(error, failures, wait)

    def _is_drop(self, error: EnclaveError) -> bool:
        """Whether to connect again; a stream that never stood is opened again where any GET would be."""
        if self.opened.is_set():
            return isinstance(error, _Dropped | UnprovenContinuation) or may_resume(error)
        return may_retry(error, creates=False)

    async def _read_connection(self) -> None:
        """Read one connection to the end of the session. Raises where it ends before that."""
        source = EventSource(self._http, self._path, position=self._position)
        async with source:
            if self.opened.is_set():
                self.resumes += 1
            self.opened.set()
            self._unfinished_bytes = 0
            decoder = FrameDecoder(
                max_event_bytes=self._http.settings.max_event_bytes,
                position=self._position,
                replays=source.last_event_id is None and self._position.count > 0,
                on_unknown=self._unknown.note,
            )
            try:
                await self._read_to_end(source, decoder)
            except APITimeoutError:
                # Silence on a connection that was good is what a long quiet session looks like, not a failure.
                self._progressed = self._progressed or not decoder.is_replaying
                raise
            finally:
                self._position = decoder.position
                self._retry_ms = self._retry_ms if decoder.retry_ms is None else decoder.retry_ms

    async def _read_to_end(self, source: EventSource, decoder: FrameDecoder) -> None:
        while not await self._read_while_room(source, decoder):
            await self._buffer.wait_for_room()
        self._complete = True
        await source.drain()

    async def _read_while_room(self, source: EventSource, decoder: FrameDecoder) -> bool:
        """Read until the session has ended (True) or the buffer is full (False), within the idle timeout.

        One cancel scope spans many reads, since making one costs as much as a read. Its deadline is only looked at when
        it has passed: if bytes have come since it was set, it is set anew. The cancelled read has lost nothing.
        """
        idle_seconds = math.inf if source.idle_seconds is None else source.idle_seconds
        self._last_read = anyio.current_time()
        while True:
            with anyio.CancelScope(deadline=self._last_read + idle_seconds):
                return await self._read(source, decoder)
            if anyio.current_time() >= self._last_read + idle_seconds:
                raise APITimeoutError(f"no bytes came within {idle_seconds:g} s")

    async def _read(self, source: EventSource, decoder: FrameDecoder) -> bool:
        while data := await source.read():
            self._last_read = anyio.current_time()
            self._unfinished_bytes += len(data)
            frames = decoder.feed(data)
            if frames:
                self._hand_over(frames)
            if decoder.ended:
                if decoder.failure is not None:
                    raise decoder.failure
                self._buffer.end(None)
                return True
            if self._buffer.is_full:
                return False
        raise _Dropped("the server closed the stream before its end frame")

    def _hand_over(self, frames: list[StreamFrame]) -> None:
        self._progressed = True
        self._buffer.put(frames, self._unfinished_bytes)
        self._unfinished_bytes = 0

    def _final(self, error: EnclaveError) -> EnclaveError:
        """What the consumer raises: that the stream was interrupted, or the error itself where it never began."""
        if isinstance(error, EventTooLargeError):
            return error
        if not self._position.count and not isinstance(error, _Dropped | HistoryMismatch):
            return error
        interrupted = StreamInterrupted(str(error), delivered=self._position.count, session_id=self._session_id)
        if not isinstance(error, _Dropped | HistoryMismatch):
            interrupted.__cause__ = error
        return interrupted
