"""`result()`: wait until a session has ended, and fetch its result.

What is known of the session decides where to begin::

    known to have ended ──────────────────────────────────┐
    just created ──────────> STREAM ──(it has ended)──────┴─> FETCH ──> the result
    not known ──> ASK ──┬─(409 or 404)──> STREAM                ↺ a moment late
                        └─(the session has ended)──> the result

So a stream that was read to its end is not read again, and an old session costs no stream at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
import msgspec

from . import _calls
from ._log import logger
from ._result_type import Decode, result_decoder
from ._routes import session_path
from ._streams import FrameBatches, FrameStream
from .errors import (
    APIConnectionError,
    APIStatusError,
    ConflictError,
    EnclaveError,
    NotFoundError,
    ProtocolError,
    SessionTornDown,
    StreamError,
)
from .transport import RetryPolicy, decoded
from .types import PhaseFrame, Session, SessionPhase, SessionResult

if TYPE_CHECKING:
    from .transport import Http

T = TypeVar("T")
End = PhaseFrame | Session
"""What says how a session has ended."""

# Whatever the client's retry policy: nothing has failed, the result is a moment late.
_POLL = RetryPolicy(attempts=5, wait_seconds=0.1)
# A stream may be silent because the session has ended and nothing is replayed. These are the waits before asking.
_FIRST_SILENCE_SECONDS = 2.0
_MAX_SILENCE_SECONDS = 30.0


class ResultQuery(Generic[T]):
    """One call of `result()`.

    Args:
        http: how to ask.
        session_id: which session.
        type_: what its value is to be decoded into.
        stream: opens the session's stream.
        saw: is told the session, whenever it was asked for.

    Raises:
        TypeError: nothing can be decoded into `type_`.
    """

    def __init__(
        self,
        http: Http,
        session_id: str,
        type_: Any,
        *,
        stream: Callable[[], FrameStream],
        saw: Callable[[Session], None] = lambda _: None,
    ) -> None:
        self._http = http
        self._session_id = session_id
        self._path = session_path(session_id, "result")
        self._decode: Decode[T] = result_decoder(type_)
        self._stream = stream
        self._saw = saw

    async def ask_first(self) -> SessionResult[T]:
        """The result of a session of which nothing is known. Raises as `EnclaveClient.result` does."""
        return await self._ask() or await self.wait()

    async def wait(self) -> SessionResult[T]:
        """The result of a session that may still be running: its stream says when it has ended."""
        return await self.fetch(await self._wait_for_end())

    async def fetch(self, end: End | None) -> SessionResult[T]:
        """The result of a session that has ended."""
        body = await self._fetch()
        try:
            result = self._decoded(body)
        except ProtocolError:
            session = await self._get()
            if session.result is None:
                raise
            return self._decoded(session.result.to_json())
        result = _with_end(result, end or await self._ended())
        if result.is_killed and result.kill_reason is None and not isinstance(end, Session):
            result = _with_end(result, await self._ended())  # the stream did not tell why, the session may
        return result

    async def _ask(self) -> SessionResult[T] | None:
        """The result, if there is one already."""
        try:
            result = self._decoded(await self._http.request("GET", self._path))
        except (ConflictError, NotFoundError):
            return None
        except (APIStatusError, ProtocolError) as error:
            # A server that has no answer here may have one in the session itself.
            session = await self._seen()
            if session is None or (session.has_ended and session.result is None):
                raise error from error.__cause__
            return None if session.result is None else self._decoded(session.result.to_json())
        session = await self._seen()
        if session is not None and session.phase is not None and not session.has_ended:
            return None  # a server that answers before the end answers with nothing
        return _with_end(result, session)

    async def _wait_for_end(self) -> End | None:
        """Read the stream until the workload has ended. None if it ended without saying so."""
        try:
            async with self._stream() as frames:
                return await self._read_to_end(frames)
        except (StreamError, APIStatusError, APIConnectionError, ProtocolError) as error:
            # The frames themselves are not needed: where the session has ended, its result can be had all the same.
            ended = await self._ended()
            if ended is None:
                raise error from error.__cause__
            return ended

    async def _read_to_end(self, frames: FrameStream) -> End | None:
        batches = frames.batches()
        silence = _FIRST_SILENCE_SECONDS
        while True:
            # One scope spans many reads. It is looked at when its time is over: if something has come, it is renewed.
            reading = _Reading(batches)
            with anyio.move_on_after(silence) as scope:
                return await reading.to_terminal_phase()
            if scope.cancelled_caught and not reading.got_frames:
                ended = await self._ended()
                if ended is not None:
                    return ended
                silence = min(2 * silence, _MAX_SILENCE_SECONDS)

    async def _fetch(self) -> bytes:
        for attempt in itertools.count(1):
            try:
                return await self._http.request("GET", self._path)
            except (ConflictError, NotFoundError) as error:
                session = await self._get()
                if session.result is not None:
                    return session.result.to_json()
                if session.phase == SessionPhase.TORN_DOWN:
                    reason = f"session {self._session_id} was torn down before it had a result"
                    raise SessionTornDown(reason) from error
                if attempt >= _POLL.attempts:
                    raise
            except APIStatusError as error:
                # A server that has no answer here may have one in the session itself.
                seen = await self._seen()
                if seen is None or seen.result is None:
                    raise error from error.__cause__
                return seen.result.to_json()
            # The phase was announced a moment before the result can be had.
            await anyio.sleep(_POLL.wait_before(attempt))
        raise AssertionError("unreachable")

    def _decoded(self, body: bytes) -> SessionResult[T]:
        return decoded(self._decode, body, f"GET {self._path}", self._http.settings.credential)

    async def _get(self) -> Session:
        session = await _calls.get(self._http, self._session_id)
        self._saw(session)
        return session

    async def _seen(self) -> Session | None:
        """The session, or None if it cannot be had. What went wrong before says more than that."""
        try:
            return await self._get()
        except EnclaveError as error:
            logger.debug("waiting for the result of session %s: %s", self._session_id, error)
            return None

    async def _ended(self) -> Session | None:
        session = await self._seen()
        return session if session is not None and session.has_ended else None


class _Reading:
    """Reads a stream until a terminal phase, and notes whether anything came."""

    def __init__(self, batches: FrameBatches) -> None:
        self._batches = batches
        self.got_frames = False

    async def to_terminal_phase(self) -> PhaseFrame | None:
        async for batch in self._batches:
            self.got_frames = True
            for frame in batch:
                if isinstance(frame, PhaseFrame) and frame.phase.is_terminal:
                    return frame
        return None


def _with_end(result: SessionResult[T], end: End | None) -> SessionResult[T]:
    """The result with what only the session knows: in which phase it ended, and why it was killed."""
    if end is None:
        return result
    return msgspec.structs.replace(
        result, phase=result.phase or end.phase, kill_reason=result.kill_reason or end.kill_reason
    )
