"""`result()`: wait until a session has ended, fetch its result, and decode it into the type asked for."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import anyio
import msgspec

from . import _calls
from ._routes import session_path
from ._streams import FrameStream
from .errors import (
    APIConnectionError,
    APIStatusError,
    ConflictError,
    EnclaveError,
    NotFoundError,
    ProtocolError,
    ResultTypeError,
    SessionTornDown,
    StreamError,
    decoding_problem,
)
from .transport import RetryPolicy, decoded
from .types import PhaseFrame, Session, SessionPhase, SessionResult
from .types._lenient import LenientDecoder

if TYPE_CHECKING:
    from .transport import Http

T = TypeVar("T")
Decode = Callable[[bytes], SessionResult[T]]

# Whatever the client's retry policy: nothing has failed, the result is a moment late.
_POLL = RetryPolicy(attempts=5, wait_seconds=0.1)

_untyped = LenientDecoder(SessionResult[Any])


async def wait_for_result(http: Http, frames: FrameStream, decode: Decode[T]) -> SessionResult[T]:
    """Read `frames` until the workload has ended, then give its result. Raises as `EnclaveClient.result` does."""
    session_id = frames.session_id
    end = await _wait_for_end(http, frames)
    body = await _fetch(http, session_id)
    result = decoded(decode, body, f"GET {session_path(session_id, 'result')}", http.settings.credential)
    if result.exit_code != 0 and (end is None or (result.exit_code is None and end.kill_reason is None)):
        end = await _calls.get(http, session_id)
    if end is None:
        return result
    return msgspec.structs.replace(
        result, phase=result.phase or end.phase, kill_reason=result.kill_reason or end.kill_reason
    )


async def _wait_for_end(http: Http, frames: FrameStream) -> PhaseFrame | Session | None:
    try:
        async with frames:
            last = await _drain_to_terminal_phase(frames)
    except (StreamError, APIStatusError, APIConnectionError, ProtocolError) as error:
        # The frames themselves are not needed: where the session has ended, its result can be had all the same.
        ended = await _ended(http, frames.session_id)
        if ended is None:
            raise error from error.__cause__
        return ended
    return last


async def _ended(http: Http, session_id: str) -> Session | None:
    try:
        session = await _calls.get(http, session_id)
    except EnclaveError:
        return None  # the stream's own error says more
    return session if session.has_ended else None


async def _fetch(http: Http, session_id: str) -> bytes:
    """The body of the result of a session that has ended."""
    path = session_path(session_id, "result")
    for attempt in itertools.count(1):
        try:
            return await http.request("GET", path)
        except (ConflictError, NotFoundError) as error:
            session = await _calls.get(http, session_id)
            if session.result is not None:
                return session.result.to_json()
            if session.phase == SessionPhase.TORN_DOWN:
                raise SessionTornDown(f"session {session_id} was torn down before it had a result") from error
            if attempt >= _POLL.attempts:
                raise
        # The phase was announced a moment before the result can be had.
        await anyio.sleep(_POLL.wait_before(attempt))
    raise AssertionError("unreachable")


@lru_cache(maxsize=256)
def _cached_decoder(type_: Any) -> LenientDecoder[SessionResult[Any]]:
    return LenientDecoder(SessionResult[type_])


def result_decoder(type_: Any) -> Callable[[bytes], SessionResult[Any]]:
    """A function from the body of a result to a ``SessionResult[type_]``.

    Raises:
        TypeError: msgspec cannot decode into `type_`.
    """
    if type_ is Any:
        return _untyped.decode
    try:
        decoder = _cached_decoder(type_)
    except (
        TypeError
    ):  # unhashable, as Annotated types with metadata can be; or a type msgspec refuses, which raises again
        decoder = LenientDecoder(SessionResult[type_])
    return lambda body: _decode(decoder, type_, body)


def _decode(decoder: LenientDecoder[SessionResult[Any]], type_: Any, body: bytes) -> SessionResult[Any]:
    try:
        result = decoder.decode(body)
        if result.value is None and result.exit_code == 0:
            msgspec.convert(None, type_)  # a value that was left out must be one the type allows for
    except msgspec.ValidationError as error:
        reason = decoding_problem(error)
    else:
        return result
    untyped = _untyped.decode(body)  # raises where the fault is not the value's
    if untyped.value is None and untyped.exit_code != 0:
        return untyped  # a workload that failed or was killed rarely has a value; its exit is what the caller must see
    if "$.json" not in reason:
        reason += " - at `$.json`"
    name = type_.__qualname__ if isinstance(type_, type) and not get_args(type_) else str(type_)
    raise ResultTypeError(f"the workload's result does not fit {name}: {reason}", result=untyped)


async def _drain_to_terminal_phase(frames: FrameStream) -> PhaseFrame | None:
    """Read until the workload has ended; None where the stream ended without saying so."""
    async for batch in frames.batches():
        for frame in batch:
            if isinstance(frame, PhaseFrame) and frame.phase.is_terminal:
                return frame
    return None
