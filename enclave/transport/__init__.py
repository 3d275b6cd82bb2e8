"""Bytes to and from the control plane. The only place that imports httpx. Imports types and errors.

Without I/O:
_sse.py            SSEDecoder: the event stream by the WHATWG rules
_frames.py         one event's data to one frame
_plain.py          which stretches of a stream can be decoded at once
_frame_decoder.py  FrameDecoder: a connection's bytes to batches of frames, fast where it can be, exact everywhere
_position.py       how far a stream has come, and what proves a replay to be of the same session
_settings.py       what a client is configured with; _credential.py: the part of it that must not show
_retry.py          RetryPolicy
_encoding.py       decompression within bounds
_exceptions.py     the boundary at which foreign exceptions become ours

With I/O:
http11/            our transport: HTTP/1.1 to one origin
_clients.py        the httpx clients, on that transport or on another one
_body_reader.py    a response's body, piece by piece
_responses.py      what a response says: its error, its value
_http.py           Http: requests, with credential, timeouts and retries
_event_source.py   EventSource: one connection of an event stream
"""

from ._credential import Secret, TokenSource
from ._event_source import EventSource
from ._frame_decoder import FrameDecoder
from ._http import Http, logger, session_path
from ._position import HistoryMismatch, Position
from ._responses import DEFAULT_MAX_RESPONSE_BYTES, decoded
from ._retry import NO_RETRY, RetryPolicy, may_retry
from ._settings import InsecureTransportWarning, Settings, Timeout
from ._sse import DEFAULT_MAX_EVENT_BYTES, SSEDecoder

__all__ = [
    "DEFAULT_MAX_EVENT_BYTES",
    "DEFAULT_MAX_RESPONSE_BYTES",
    "NO_RETRY",
    "EventSource",
    "FrameDecoder",
    "HistoryMismatch",
    "Http",
    "InsecureTransportWarning",
    "Position",
    "RetryPolicy",
    "SSEDecoder",
    "Secret",
    "Settings",
    "Timeout",
    "TokenSource",
    "decoded",
    "logger",
    "may_retry",
    "session_path",
]
