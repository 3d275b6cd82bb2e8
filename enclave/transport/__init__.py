"""Bytes to and from the control plane. The only place that imports httpx. Imports types and errors.

Without httpx, so that importing the SDK does not pay for it:
_settings.py       what a client is configured with; _credential.py: the part of it that must not show
_retry.py          RetryPolicy
_routes.py         the paths that take a session id
_decoded.py        the value that a body decodes to
_position.py       how far a stream has come, and what proves a replay to be of the same session
_log.py            the logger; _observed.py: calls to an observer, whose failures are logged

Decoding, without I/O:
_sse.py            SSEDecoder: the event stream by the WHATWG rules
_frames.py         one event's data to one frame
_plain.py          which stretches of a stream can be decoded at once
_frame_decoder.py  FrameDecoder: a connection's bytes to batches of frames, fast where it can be, exact everywhere
_encoding.py       decompression within bounds

With I/O:
http11/            our transport: HTTP/1.1 to one origin
_clients.py        the httpx clients, on that transport or on another one
_exceptions.py     the boundary at which foreign exceptions become ours
_body_reader.py    a response's body, piece by piece
_responses.py      the error that a response stands for
_http.py           Http: requests, with credential, timeouts and retries
_event_source.py   EventSource: one connection of an event stream
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# What `__all__` leaves out is re-exported, by the `as`, for the rest of the SDK alone.
from ._credential import Secret as Secret
from ._credential import TokenSource
from ._decoded import decoded as decoded
from ._log import logger as logger
from ._observed import ObservedSession as ObservedSession
from ._observed import ObservedStream as ObservedStream
from ._position import HistoryMismatch as HistoryMismatch
from ._position import Position as Position
from ._position import UnprovenContinuation as UnprovenContinuation
from ._retry import NO_RETRY as NO_RETRY
from ._retry import RetryPolicy
from ._retry import may_resume as may_resume
from ._retry import may_retry as may_retry
from ._routes import session_path as session_path
from ._settings import DEFAULT_MAX_EVENT_BYTES, DEFAULT_MAX_RESPONSE_BYTES, InsecureTransportWarning, Timeout
from ._settings import Settings as Settings

if TYPE_CHECKING:
    from ._event_source import EventSource as EventSource
    from ._frame_decoder import FrameDecoder as FrameDecoder
    from ._http import Http as Http
    from ._sse import SSEDecoder

__all__ = [
    "DEFAULT_MAX_EVENT_BYTES",
    "DEFAULT_MAX_RESPONSE_BYTES",
    "InsecureTransportWarning",
    "RetryPolicy",
    "SSEDecoder",
    "Timeout",
    "TokenSource",
]

# Importing httpx takes longer than importing all the rest of the SDK. The first client pays for it, not every process
# that imports the SDK for its types, its errors or its command line.
_WITH_HTTPX = {
    "EventSource": "_event_source",
    "FrameDecoder": "_frame_decoder",
    "Http": "_http",
    "SSEDecoder": "_sse",
}


def __getattr__(name: str) -> Any:
    if name not in _WITH_HTTPX:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_WITH_HTTPX[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__]
