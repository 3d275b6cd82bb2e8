"""One request and its response. The only place that imports httpx. Imports types and errors.

Without I/O:
_settings.py       what a client is configured with
_credential.py     the part of it that must not show
_proxies.py        the proxy that the environment names
_retry.py          RetryPolicy
_brake.py          what holds a client's creates back when the server refuses them
_per_loop.py       what a client has in each event loop
_messages.py       the seam: a request, a response, and what a transport is
_blocks.py         the event stream by the WHATWG rules
_sse.py            SSEDecoder: the same for callers, as events of httpx-sse
_encoding.py       decompression within bounds
_decoded.py        the value that a body decodes to

With I/O:
_http.py           Http: requests, with credential, timeouts and retries
_body_reader.py    a response's body, piece by piece
_time_limit.py     how long a request may take, and each step of it
_responses.py      the error that a response stands for
_redact.py         a server's text without the client's credential in it
_transports.py     which transport carries a client's requests
http11/            our own: HTTP/1.1 to one origin
_httpx_transport.py  an adapter for httpx's transports, which the caller or a proxy asks for
_exceptions.py     the boundary at which foreign exceptions become ours
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# What `__all__` leaves out is re-exported, by the `as`, for the rest of the SDK alone.
from ._credential import Secret as Secret
from ._credential import TokenSource
from ._decoded import decoded as decoded
from ._per_loop import PerLoop as PerLoop
from ._redact import redacted as redacted
from ._retry import NO_RETRY as NO_RETRY
from ._retry import RetryPolicy
from ._retry import may_resume as may_resume
from ._retry import may_retry as may_retry
from ._settings import DEFAULT_MAX_EVENT_BYTES, DEFAULT_MAX_RESPONSE_BYTES, InsecureTransportWarning, Timeout
from ._settings import Settings as Settings

if TYPE_CHECKING:
    from ._blocks import Block as Block
    from ._blocks import BlockDecoder as BlockDecoder
    from ._body_reader import body_of as body_of
    from ._body_reader import read_start as read_start
    from ._brake import Lane as Lane
    from ._brake import Turn as Turn
    from ._http import Http as Http
    from ._messages import Body as Body
    from ._messages import Delivery as Delivery
    from ._messages import Headers as Headers
    from ._messages import Response as Response
    from ._responses import status_error as status_error
    from ._sse import SSEDecoder
    from ._time_limit import TimeLimit as TimeLimit

__all__ = [
    "DEFAULT_MAX_EVENT_BYTES",
    "DEFAULT_MAX_RESPONSE_BYTES",
    "InsecureTransportWarning",
    "RetryPolicy",
    "SSEDecoder",
    "Timeout",
    "TokenSource",
]

# Importing anyio takes longer than importing the types and the errors, and importing httpx, which `SSEDecoder` does,
# longer than all the rest. The first client pays for it, not every process that imports the SDK.
_LOADED_WHEN_USED = {
    "Block": "_blocks",
    "BlockDecoder": "_blocks",
    "Body": "_messages",
    "Delivery": "_messages",
    "Headers": "_messages",
    "Http": "_http",
    "Lane": "_brake",
    "Response": "_messages",
    "SSEDecoder": "_sse",
    "TimeLimit": "_time_limit",
    "Turn": "_brake",
    "body_of": "_body_reader",
    "read_start": "_body_reader",
    "status_error": "_responses",
}


def __getattr__(name: str) -> Any:
    if name not in _LOADED_WHEN_USED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_LOADED_WHEN_USED[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__]
