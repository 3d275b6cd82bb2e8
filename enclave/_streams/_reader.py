"""The task behind a stream: it connects, connects again, and records why it ended. It raises nothing to its owner.

A connection that ends before the session does is a drop, however cleanly it closed. The reader then connects again,
after a growing wait, and goes on exactly where it stood (see `History`). What is bounded is the number of attempts in a
row that bring nothing new. A quiet session may be resumed any number of times.
"""

from __future__ import annotations

import anyio

from enclave._log import logger
from enclave._loop import cancelled_by_others, uninterrupted
from enclave._observed import ObservedStream
from enclave._owned_task import OwnedTask, cut_short
from enclave._routes import session_path
from enclave.errors import APIStatusError, EnclaveError, EventTooLargeError, StreamInterrupted
from enclave.transport import NO_RETRY, Http, decoded, may_resume, may_retry
from enclave.types._answers import decode_session

from ._buffer import FrameBuffer
from ._connection import Connection, Dropped
from ._history import History, HistoryMismatch, UnprovenContinuation
from ._warnings import UnknownFrameLog

_STATUSES_OF_A_REFUSED_ID = frozenset({400, 431})
"""What servers answer to an id that they do not know, or to a header that they find too long."""


class StreamReader(OwnedTask):
    """Fills a `FrameBuffer` with the frames of one session, each once and in order."""

    __slots__ = (
        "_broken",
        "_buffer",
        "_connection",
        "_failures",
        "_has_stood",
        "_history",
        "_http",
        "_is_complete",
        "_observed",
        "_retry_ms",
        "_session_id",
        "_stalls",
        "_unknown_frames",
        "resumes",
    )

    def __init__(self, http: Http, session_id: str, buffer: FrameBuffer) -> None:
        super().__init__(f"stream of session {session_id}")
        self._http = http
        self._session_id = session_id
        self._buffer = buffer
        self._history = History()
        self._unknown_frames = UnknownFrameLog(session_id)
        self._observed = ObservedStream()
        self._connection: Connection | None = None
        self._broken: EnclaveError | None = None  # why the connection is of no more use, until that was looked at
        self._has_stood = False  # a connection was opened
        self._is_complete = False  # the end was read, so a failure of the connection no longer matters
        # Attempts in a row that brought nothing new, the latest included. In a stall, known frames came.
        self._failures = 0
        self._stalls = 0
        self._retry_ms: int | None = None
        self.resumes = 0
        """How many times the stream was resumed on a new connection."""

    @uninterrupted
    async def _run(self) -> None:
        """Read to the end of the session, or until cancelled."""
        self._has_stepped = True
        error: Exception | None = None
        reason: BaseException | None = None
        try:
            # Here and not where the stream is entered, because this task's context is the reader's own.
            self._observed = self._http.observing.stream(self._session_id)
            # A scope that is made after `cancel` is cancelled, so the reason comes with the next wait.
            while not (self._is_complete or (self.cancel_requested and reason is not None)):
                reason = None  # that of a deadline which has passed would keep the frames that it went through
                with self._new_scope() as scope:
                    try:
                        await self._go_on(scope)
                    except BaseException as stopped:
                        reason = stopped  # the scope may take it in
                        raise
        except EnclaveError as failure:
            error = reason = self._final(failure)
        except Exception as failure:  # noqa: BLE001 - of a caller's transport or token callable, for the consumer to raise
            error = failure
        except anyio.get_cancelled_exc_class() as cancellation:
            if self.cancel_requested:
                return  # `Task.cancel` has bypassed the scope, and a task that ends in a cancellation keeps it
            if not cancelled_by_others(cancellation):
                raise
            # Somebody cancelled this task itself, or what it awaited. The consumer may know nothing of that, and
            # must not take it for the end of the session.
            error = reason = self._interruption("the task that reads it was cancelled by other code", cancellation)
        finally:
            try:
                if self._connection is not None:
                    await self._connection.aclose()
            finally:
                self._end_with(error, None if self._is_complete else reason)
                error = reason = self._broken = None  # their tracebacks refer to this frame, and to this object

    def _end_with(self, error: Exception | None, reason: BaseException | None) -> None:
        try:
            self._unknown_frames.write()  # what came right before a cancellation
        except Exception as failure:  # noqa: BLE001 - of a handler or a filter of the program's
            error = error or failure
        try:
            self._buffer.end(error)
            self._observed.ended(reason, self._history.count, self.resumes)
        finally:
            self._set_ended()  # whatever an observer raises, for the owner waits for this

    def _has_never_begun(self) -> bool:
        error = cut_short(self.name)
        self._end_with(error, error)
        return False

    async def _go_on(self, scope: anyio.CancelScope) -> None:
        """Do what comes next, within a scope. Called again until all is done, each time in a new one.

        It returns when a connection broke, for the deadline of the scope may have passed at the same moment. If the
        deadline passes during a read, the scope cuts it off. The next call looks whether bytes came meanwhile, and
        then reads on.
        """
        if self._connection is not None and self._broken is not None:
            await anyio.sleep(await self._wait_after_break(self._connection, self._broken))
        try:
            connection = self._connection or await self._connect()
            self._waits_unshielded = connection.reads_unshielded
            try:
                await connection.read_to_end(scope)
            finally:
                self._waits_unshielded = False
            # The consumer gets the end now. It need not wait until the connection is drained.
            self._is_complete = True
            self._buffer.end(None)
            await connection.drain(scope)
        except EnclaveError as error:
            self._broken = error

    async def _connect(self) -> Connection:
        path = session_path(self._session_id, "stream")
        connection = Connection(self._http, path, self._history, self._buffer, self._unknown_frames)
        self._connection = connection
        await connection.open()
        if self._has_stood:
            self.resumes += 1
        self._has_stood = True
        self._buffer.open()
        return connection

    async def _wait_after_break(self, connection: Connection, error: EnclaveError) -> float:
        """How long to wait before the next connection, in seconds. Raises why the latest one broke if there is none."""
        self._connection = self._broken = None
        await connection.aclose()
        was_of_use = connection.was_of_use or (connection.was_given_up_by_proxy and await self._is_running())
        return self._wait_after(error, connection, was_of_use=was_of_use)

    async def _is_running(self) -> bool:
        """Whether the server shows the session and it has not ended. Then its stream may be silent with good reason."""
        path = session_path(self._session_id)
        http = self._http.with_options(timeout=self._http.settings.timeout, retry=NO_RETRY)
        try:
            body = await http.request("GET", path)
            return not decoded(decode_session, body, f"GET {path}", http.settings.credential).has_ended
        except EnclaveError as error:
            logger.debug("stream of session %s: is silent, and %s", self._session_id, error)
            return False

    def _wait_after(self, error: EnclaveError, connection: Connection, *, was_of_use: bool) -> float:
        """How long to wait before the next connection, in seconds. Raises `error` if there should be none."""
        if connection.retry_ms is not None:
            self._retry_ms = connection.retry_ms
        if _is_about_the_id(error, connection):
            # The server is well and is asked for something else, so this is no failed attempt. It happens only once.
            self._history.distrust_ids()
            return self._tell(error, 0.0)
        if was_of_use:
            self._failures, self._stalls = 1, 0
        elif connection.has_stalled and self._failures:
            self._stalls += 1
        else:
            self._failures += 1
        policy = self._http.retry
        if self._attempts == policy.attempts > 1 and connection.has_opened and connection.last_event_id is not None:
            # Perhaps the server waits in vain for what comes after this id. One more attempt asks for a replay.
            self._history.distrust_ids()
            self._failures -= 1
        if self._attempts >= policy.attempts or not self._is_drop(error):
            error.retries = self._failures + self._stalls - 1
            raise error
        base_seconds = None if self._retry_ms is None else self._retry_ms / 1000
        retry = self._failures + self._stalls  # each wait is longer than the one before, also after a stall
        return self._tell(error, policy.wait_before(retry, error, base_seconds=base_seconds))

    @property
    def _attempts(self) -> int:
        """How many of the attempts in a row that `RetryPolicy` allows are used up.

        A stall is half of one. The server lives, and where it replays the session a later break brings the stream on.
        But a server that breaks off at the same place each time must not be asked for ever.
        """
        return self._failures + self._stalls // 2

    def _is_drop(self, error: EnclaveError) -> bool:
        """Whether to connect again. A stream that never stood is opened again when any GET would be."""
        if self._has_stood:
            return isinstance(error, Dropped) or may_resume(error)
        return may_retry(error, creates=False)

    def _tell(self, error: EnclaveError, wait: float) -> float:
        attempt = max(self._attempts, 1)
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
