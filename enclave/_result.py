"""From a terminal session to its typed result."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, get_args

import msgspec

from ._streams import FrameStream
from .errors import ResultTypeError
from .types import PhaseFrame, SessionResult
from .types._json import decode_text

_untyped = msgspec.json.Decoder(SessionResult[Any])


@lru_cache(maxsize=256)
def _cached_decoder(type_: Any) -> msgspec.json.Decoder[SessionResult[Any]]:
    return msgspec.json.Decoder(SessionResult[type_])


def result_decoder(type_: Any) -> Callable[[bytes], SessionResult[Any]]:
    """A function from the body of a result to a ``SessionResult[type_]``.

    Raises:
        TypeError: msgspec cannot decode into `type_`.
    """
    if type_ is Any:
        return lambda body: decode_text(_untyped, body)
    try:
        decoder = _cached_decoder(type_)
    except (
        TypeError
    ):  # unhashable, as Annotated types with metadata can be; or a type msgspec refuses, which raises again
        decoder = msgspec.json.Decoder(SessionResult[type_])
    return lambda body: _decode(decoder, type_, body)


def _decode(decoder: msgspec.json.Decoder[SessionResult[Any]], type_: Any, body: bytes) -> SessionResult[Any]:
    try:
        result = decode_text(decoder, body)
        if result.value is None and result.exit_code == 0:
            msgspec.convert(None, type_)  # a value that was left out must be one the type allows for
    except msgspec.ValidationError as error:
        reason = str(error)
    else:
        return result
    untyped = decode_text(_untyped, body)  # raises where the fault is not the value's
    if untyped.value is None and untyped.exit_code != 0:
        return untyped  # a workload that failed or was killed rarely has a value; its exit is what the caller must see
    if "$.json" not in reason:
        reason += " - at `$.json`"
    name = type_.__qualname__ if isinstance(type_, type) and not get_args(type_) else str(type_)
    raise ResultTypeError(f"the workload's result does not fit {name}: {reason}", result=untyped)


async def drain_to_terminal_phase(frames: FrameStream) -> PhaseFrame | None:
    """Read until the workload has ended; None where the stream ended without saying so."""
    async for batch in frames.batches():
        for frame in batch:
            if isinstance(frame, PhaseFrame) and frame.phase.is_terminal:
                return frame
    return None
