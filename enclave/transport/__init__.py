"""One request and its response. The only place that imports httpx. Imports types and errors.

Without httpx, so that importing the SDK does not pay for it:
_settings.py       what a client is configured with; _credential.py: the part of it that must not show
_retry.py          RetryPolicy
_decoded.py        the value that a body decodes to

Without I/O:
_sse.py            SSEDecoder: the event stream by the WHATWG rules
_encoding.py       decompression within bounds

With I/O:
http11/            our transport: HTTP/1.1 to one origin
_clients.py        the httpx clients, on that transport or on another one
_exceptions.py     the boundary at which foreign exceptions become ours
_body_reader.py    a response's body, piece by piece
_responses.py      the error that a response stands for
_redact.py         the client's credential taken out of what a server says
_http.py           Http: requests, with credential, timeouts and retries
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# What `__all__` leaves out is re-exported, by the `as`, for the rest of the SDK alone.
from ._credential import Secret as Secret
from ._credential import TokenSource
from ._decoded import decoded as decoded
from ._redact import redacted as redacted
from ._retry import NO_RETRY as NO_RETRY
from ._retry import RetryPolicy
from ._retry import may_resume as may_resume
from ._retry import may_retry as may_retry
from ._settings import DEFAULT_MAX_EVENT_BYTES, DEFAULT_MAX_RESPONSE_BYTES, InsecureTransportWarning, Timeout
from ._settings import Settings as Settings

if TYPE_CHECKING:
    from ._body_reader import BodyReader as BodyReader
    from ._exceptions import time_limit as time_limit
    from ._exceptions import transport_errors as transport_errors
    from ._http import Headers as Headers
    from ._http import Http as Http
    from ._responses import status_error as status_error
    from ._sse import Block as Block
    from ._sse import BlockDecoder as BlockDecoder
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
    "Block": "_sse",
    "BlockDecoder": "_sse",
    "BodyReader": "_body_reader",
    "Headers": "_http",
    "Http": "_http",
    "SSEDecoder": "_sse",
    "status_error": "_responses",
    "time_limit": "_exceptions",
    "transport_errors": "_exceptions",
}


def __getattr__(name: str) -> Any:
    if name not in _WITH_HTTPX:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_WITH_HTTPX[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__]
