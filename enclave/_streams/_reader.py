"""The task behind a stream: it connects, connects again, and records why it ended. It never raises into its task group.

A connection that ends before the session does is a drop, however cleanly it closed. The reader then connects again,
after a growing wait, and goes on exactly where it stood (see `History`). What is bounded is the number of attempts in a
row that bring nothing. A quiet session may be resumed any number of times.
"""

from __future__ import annotations

import anyio

from enclave._log import logger
from enclave._loop import cancelled_by_others
from enclave._observed import ObservedStream
from enclave._routes import session_path
from enclave.errors import APIStatusError, EnclaveError, EventTooLargeError, StreamInterrupted
from enclave.transport import Http, may_resume, may_retry

from ._buffer import FrameBuffer
from ._connection import Connection, Dropped
from ._history import History, HistoryMismatch, UnprovenContinuation
from ._warnings import UnknownFrameLog

_STATUSES_OF_A_REFUSED_ID = frozenset({400, 431})
"""What servers answer to an id that they do not know, or to a header that they find too long."""


class StreamReader:
    """Fills a `FrameBuffer` with the frames of one session, each once and in order."""

    __slots__ = (
        "_buffer",
        "_failures",
        "_has_stood",
        "_history",
        "_http",
        "_is_complete",
        "_observed",
        "_path",
        "_retry_ms",
        "_session_id",
        "_unknown_frames",
        "resumes",
    )

    def __init__(self, http: Http, session_id: str, buffer: FrameBuffer) -> None:
        self._http = http
        self._session_id = session_id
        self._path = session_path(session_id, "stream")
        self._buffer = buffer
        self._history = History()
        self._unknown_frames = UnknownFrameLog(session_id)
        self._observed = ObservedStream()
        self._has_stood = False  # a connection was opened
        self._is_complete = False  # the end was read, so a failure of the connection no longer matters
        self._failures = 0  # attempts in a row that brought nothing, the latest included
        self._retry_ms: int | None = None
        self.resumes = 0
        """How many times the stream was resumed on a new connection."""

    async def run(self) -> None:
        """Read to the end of the session, or until cancelled."""
        # Here and not where the stream is entered, because this task's context is the reader's own.
        self._observed = self._http.observing.stream(self._session_id)
        error: Exception | None = None
        try:
            await self._read_connections()
        except EnclaveError as failure:
            error = self._final(failure)
        except Exception as failure:  # noqa: BLE001 - of a caller's transport or token callable, for the consumer to raise
            error = failure
        except BaseException as cancellation:
            if not cancelled_by_others(cancellation):
                self._end(None, None if self._is_complete else cancellation)
                raise
            # Somebody cancelled this task itself, or what it awaited. The consumer may know nothing of that, and
            # must not take it for the end of the session.
            error = self._interruption("the task that reads it was cancelled by other code", cancellation)
        self._end(error, error)

    def _end(self, error: Exception | None, reason: BaseException | None) -> None:
        self._buffer.end(error)
        self._observed.ended(reason, self._history.count, self.resumes)

    async def _read_connections(self) -> None:
        while True:
            connection = Connection(self._http, self._path, self._history, self._buffer, self._unknown_frames)
            try:
                async with connection:
                    if self._has_stood:
                        self.resumes += 1
                    self._has_stood = True
                    self._buffer.open()
                    await connection.read_to_end()
                    # The consumer gets the end now. It need not wait until the connection is drained.
                    self._is_complete = True
                    self._buffer.end(None)
                    await connection.drain()
            except EnclaveError as error:
                if self._is_complete:
                    return
                wait = self._wait_after(error, connection)
            else:
                return
            await anyio.sleep(wait)

    def _wait_after(self, error: EnclaveError, connection: Connection) -> float:
        """How long to wait before the next connection, in seconds. Raises `error` if there should be none."""
        if connection.retry_ms is not None:
            self._retry_ms = connection.retry_ms
        if _is_about_the_id(error, connection):
            # The server is well and is asked for something else, so this is no failed attempt. It happens only once.
            self._history.distrust_ids()
            return self._tell(error, 0.0)
        self._failures = 1 if connection.was_of_use else self._failures + 1
        policy = self._http.retry
        if self._failures == policy.attempts > 1 and connection.has_opened and connection.last_event_id is not None:
            # Perhaps the server waits in vain for what comes after this id. One more attempt asks for a replay.
            self._history.distrust_ids()
            self._failures -= 1
        if self._failures >= policy.attempts or not self._is_drop(error):
            error.retries = self._failures - 1
            raise error
        base_seconds = None if self._retry_ms is None else self._retry_ms / 1000
        return self._tell(error, policy.wait_before(self._failures, error, base_seconds=base_seconds))

    def _is_drop(self, error: EnclaveError) -> bool:
        """Whether to connect again. A stream that never stood is opened again when any GET would be."""
        if self._has_stood:
            return isinstance(error, Dropped) or may_resume(error)
        return may_retry(error, creates=False)

    def _tell(self, error: EnclaveError, wait: float) -> float:
        attempt = max(self._failures, 1)
        logger.debug(
            "stream of session %s: %s, resume after %d frames, attempt %d of %d, in %.2f s",
            self._session_id,
            error,
            self._history.count,
            attempt,
            self._http.retry.attempts - 1,
            wait,
        )
        if self._has_stood:
            self._observed.resuming(error, attempt, wait, self._history.count)
        else:
            self._observed.retrying(error, attempt, wait)
        return wait

    def _final(self, error: EnclaveError) -> EnclaveError:
        """What the consumer raises: that the stream was interrupted, or the error itself if it never began."""
        if isinstance(error, EventTooLargeError):
            return error
        if isinstance(error, Dropped | HistoryMismatch):
            return self._interruption(str(error))
        return self._interruption(str(error), error) if self._history.count else error

    def _interruption(self, reason: str, cause: BaseException | None = None) -> StreamInterrupted:
        interrupted = StreamInterrupted(reason, delivered=self._history.count, session_id=self._session_id)
        interrupted.__cause__ = cause
        return interrupted


def _is_about_the_id(error: EnclaveError, connection: Connection) -> bool:
    """Whether asking for a replay, and not going on after an id, is the remedy."""
    if isinstance(error, UnprovenContinuation):
        return True
    is_refusal = isinstance(error, APIStatusError) and error.status in _STATUSES_OF_A_REFUSED_ID
    return is_refusal and connection.last_event_id is not None
