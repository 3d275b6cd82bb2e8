"""A session of a caller's: `SessionHandle`, and `SessionBlock`, which holds one for the length of a block."""

from __future__ import annotations

import math
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

import msgspec
from anyio import current_effective_deadline
from anyio.lowlevel import checkpoint_if_cancelled

from . import _calls
from ._create import Creates, create, discard
from ._log import logger
from ._loop import uninterrupted
from ._observed import ObservedSession
from ._result import ResultQuery
from ._routes import session_path
from ._streams import FrameStream
from ._tasks import BackgroundTask, TaskState
from .errors import APITimeoutError, ResultTypeError, UsageError
from .types import (
    AuditEvent,
    CreateSessionRequest,
    EndFrame,
    PhaseFrame,
    ResultFrame,
    Session,
    SessionPhase,
    SessionResult,
    StreamFrame,
)

if TYPE_CHECKING:
    from .transport import Http, Turn

T = TypeVar("T")


class SessionHandle:
    """A session on the server. Holds its id and the client's connections, none of its own. Tasks may share it."""

    def __init__(
        self, http: Http, session_id: str, session: Session | None = None, *, observed: ObservedSession | None = None
    ) -> None:
        self.id = session_id
        """The session's opaque identifier."""
        self._http = http
        self._last_seen = session
        self._is_created = session is not None  # by this client, so a stream of it has everything yet to give
        self._is_through = False  # a stream of this handle was read to its end
        self._observed = observed or ObservedSession()

    def __repr__(self) -> str:
        phase = f" {self.phase}" if self.phase else ""
        return f"<SessionHandle {self.id!r}{phase}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a SessionHandle cannot be pickled. Send its id instead, and use EnclaveClient.attach(id) at the other end"
        )

    @property
    def last_seen(self) -> Session | None:
        """The session as the server last showed it to this handle. None for an attached one that has not been seen.

        Creating the session and `refresh` set it. Frames that pass through a stream of this handle, and `result`, keep
        its ``phase``, ``kill_reason`` and ``result`` current. An attached session that was seen in frames alone has no
        other fields.
        """
        return self._last_seen

    @property
    def phase(self) -> SessionPhase | None:
        """The phase of `last_seen`."""
        return None if self._last_seen is None else self._last_seen.phase

    async def refresh(self) -> Session:
        """Fetch the session as it is now. Raises as `EnclaveClient.get` does."""
        self._last_seen = session = await _calls.get(self._http, self.id)
        self._observed.seen(session)
        return session

    def stream(self) -> FrameStream:
        """The session's frames, from the first one. See `EnclaveClient.stream`."""
        return FrameStream(self._http, self.id, self._watch)

    @overload
    async def result(self) -> SessionResult[Any]: ...
    @overload
    async def result(self, type: type[T]) -> SessionResult[T]: ...
    @overload
    async def result(self, type: Any) -> SessionResult[Any]: ...

    async def result(self, type: Any = Any) -> SessionResult[Any]:
        """Wait for the workload to end and give its result. See `EnclaveClient.result`."""
        query = ResultQuery[Any](self._http, self.id, type, stream=self.stream, saw=self._saw_session)
        try:
            # A stream that was read to its end is not read again, and one of an old session may not be needed at all.
            if self._has_ended:
                result = await query.fetch(self._last_seen)
            elif self._is_created:
                result = await query.wait()
            else:
                result = await query.ask_first()
        except ResultTypeError as error:
            # The value does not fit the type. How the workload ended is known all the same.
            self._finished(error.result)
            raise
        self._finished(result)
        return result

    async def audit(self) -> list[AuditEvent]:
        """The session's audit trail so far. See `EnclaveClient.audit`."""
        return await _calls.audit(self._http, self.id)

    async def teardown(self) -> None:
        """Stop the workload if it runs, and reclaim everything. See `EnclaveClient.teardown`."""
        await _calls.teardown(self._http, self.id)

    @property
    def _has_ended(self) -> bool:
        return self._is_through or (self._last_seen is not None and self._last_seen.has_ended)

    def _saw_session(self, session: Session) -> None:
        self._last_seen = session

    def _watch(self, frames: list[StreamFrame]) -> None:
        # Output frames are nearly all there is, and this passes them by without a Python step for each.
        if _TELLING.isdisjoint(map(type, frames)):
            return
        for frame in frames:
            if isinstance(frame, PhaseFrame):
                self._saw(frame.phase, kill_reason=frame.kill_reason)
            elif isinstance(frame, ResultFrame):
                # A server may send the result before the phase, and 137 as the exit code of a killed workload.
                self._saw_result(frame.result)
            elif isinstance(frame, EndFrame):
                self._is_through = True

    def _finished(self, result: SessionResult[Any]) -> None:
        self._saw_result(result)
        self._observed.finished(result)

    def _saw_result(self, result: SessionResult[Any]) -> None:
        phase = result.phase or result.ended_as
        self._saw(phase, is_guess=result.phase is None, result=result, kill_reason=result.kill_reason)

    def _saw(self, phase: SessionPhase, *, is_guess: bool = False, **fields: Any) -> None:
        """Note what was learned. A second stream replays phases that have passed, and these change nothing.

        A phase that the server states takes the place of one that was concluded from a result.
        """
        # Phases only go forward here, whatever order the streams of several tasks show them in.
        seen = self._last_seen or Session(id=self.id, phase=phase)
        rank = _RANK.get(phase, _LAST)
        seen_rank = -1 if seen.phase is None else _RANK.get(seen.phase, 0)
        if rank > seen_rank or (rank == seen_rank and not is_guess):
            fields["phase"] = phase
        known = {name: value for name, value in fields.items() if value is not None}
        self._last_seen = msgspec.structs.replace(seen, **known)


_TELLING = frozenset({PhaseFrame, ResultFrame, EndFrame})
_LAST = 3
_RANK = {
    SessionPhase.PENDING: 0,
    SessionPhase.RUNNING: 1,
    SessionPhase.SUCCEEDED: 2,
    SessionPhase.FAILED: 2,
    SessionPhase.KILLED: 2,
    SessionPhase.TORN_DOWN: _LAST,
}


_RIGHT_FORM = (
    "this session is not open. Write: async with enclave.session(...) as session: ..., or await enclave.run(...)"
)


class SessionBlock:
    """What `EnclaveClient.session` gives: an async context manager that holds a session for the length of a block."""

    def __init__(self, http: Http, creates: Creates, request: CreateSessionRequest, turn: Turn | None = None) -> None:
        self._http = http
        self._turn = turn
        self._creates = creates
        self._request = request
        self._observed = ObservedSession()
        self._handle: SessionHandle | None = None
        self._entered = False
        self._is_torn_down = False  # by the client, which was closed

    if not TYPE_CHECKING:  # a type checker refuses these by itself

        def __await__(self) -> NoReturn:
            raise UsageError(_RIGHT_FORM)

        def __aiter__(self) -> NoReturn:
            raise UsageError(_RIGHT_FORM)

        def __enter__(self) -> NoReturn:
            raise UsageError(_RIGHT_FORM)

        def __exit__(self, *exc_info: object) -> None: ...

        def __getattr__(self, name: str) -> NoReturn:
            if (not name.startswith("_") and hasattr(SessionHandle, name)) or name == "id":
                raise UsageError(_RIGHT_FORM)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    @uninterrupted
    async def __aenter__(self) -> SessionHandle:
        if self._entered:
            raise UsageError("a session block is entered once. Call session() again for another one")
        self._entered = True
        self._observed = self._http.observing.session(self._request)
        try:
            session = await create(self._http, self._creates, self._request, self._observed, self._turn)
        except BaseException as error:
            self._end(error)
            raise
        self._handle = SessionHandle(self._http, session.id, session, observed=self._observed)
        self._creates.open_work.add(self)
        return self._handle

    @uninterrupted
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._handle is None:
            return
        open_work = self._creates.open_work
        open_work.remove(self)
        try:
            if not self._is_torn_down:
                with open_work.under_way():
                    await _leave(self._http, self._handle.id, exc, self._observed)
        except BaseException as error:
            self._end(error)
            raise
        self._end(exc)

    async def tear_down(self) -> None:
        """Tear the session down while the block goes on, because the client is being closed."""
        if self._handle is None:
            return
        try:
            await discard(self._http, self._handle.id)
        except Exception as error:  # noqa: BLE001 - whoever leaves the block is told as well
            logger.warning("tearing down session %s while its client was closed failed: %s", self._handle.id, error)
        else:
            self._is_torn_down = self._observed.torn_down = True
        self._creates.open_work.remove(self)

    def _end(self, error: BaseException | None) -> None:
        self._observed.__exit__(None if error is None else type(error), error, None)


async def _leave(http: Http, session_id: str, body_error: BaseException | None, observed: ObservedSession) -> None:
    """Discard the session of a block. What goes wrong is a note on the block's own exception, where it has one."""
    # A scope that was cancelled before is no news to the block, and its exception may be the answer to that.
    cancelled_before = body_error is not None and current_effective_deadline() == -math.inf

    async def tear_down() -> None:
        await discard(http, session_id)
        observed.torn_down = True

    # Tearing down can be repeated, so it is, where somebody cuts it short.
    work = BackgroundTask(tear_down, f"tearing down session {session_id}", again=tear_down)
    work.end_within(http.settings.timeout.teardown)
    cancellation = await work.complete()
    # A cancelled scope shows at a checkpoint alone, and it goes before a failure of the teardown.
    if cancellation is None and not cancelled_before:
        cancellation = await _pending_cancellation()
    error = work.error
    if work.state is TaskState.CANCELLED:
        error = APITimeoutError(f"DELETE {session_path(session_id)}: not done within {work.seconds:.1f} s")
    if error is not None:
        _tell(work.name, error, body_error, cancellation)
    if cancellation is not None:
        raise cancellation
    if error is not None and body_error is None:
        raise error


def _tell(
    what: str, error: BaseException, body_error: BaseException | None, cancellation: BaseException | None
) -> None:
    """Note a failure on the block's own exception, and log it where that gives way to a cancellation, or is one."""
    said = str(error) or type(error).__name__
    if body_error is not None:
        body_error.add_note(f"{what} failed as well: {said}")
    if body_error is not None and not isinstance(body_error, Exception):
        logger.warning("%s failed: %s", what, said)
    elif cancellation is not None:
        logger.warning("%s failed, and was cancelled: %s", what, said)


async def _pending_cancellation() -> BaseException | None:
    """What the next checkpoint would raise, where a scope around here was cancelled."""
    try:
        await checkpoint_if_cancelled()
    except BaseException as cancellation:  # noqa: BLE001 - given to the caller, who raises it
        return cancellation
    return None
